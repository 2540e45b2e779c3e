"""The model's world for the suite `thp` (L12 to L14)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import CAUSE_PUNCH, NR_CAUSES, STALE, TALLY_SPLIT_2M, TALLY_SPLIT_FAILED, TALLY_UNDERUSED, USED
from gmemlab.kernel.suites.steps import FileSeen, Step
from gmemlab.lab.conform.model_files import ModelFile, ModelFiles, folio_runs, runs
from gmemlab.model.guest import GuestMemory
from gmemlab.policy import Policy
from gmemlab.presets import find


class ModelShmem(ModelFiles):
    """Ordinary shared memory in huge folios where they lie within the file.

    Args:
        policy: how it is backed, which depends on the release.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def open(self, step: Step) -> GuestMemory:
        """An empty file."""
        return self.host.memory(step.size, self.policy)

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """Presence, contents and folios."""
        written = (pages[:, 3] == USED) | (pages[:, 3] == STALE)
        tags = np.where(written, file.tags, 0).astype(np.uint8)
        return FileSeen(present=runs(pages[:, 1] >= 0), tags=bytes(tags), folios=folio_runs(pages))

    def counters(self) -> dict[str, int]:
        """Splits of 2 MiB folios, of these because they were mostly zeros, and splits of any size that failed."""
        tally = self.host.state.tally
        return {
            "split": int(tally[TALLY_SPLIT_2M : TALLY_SPLIT_2M + NR_CAUSES].sum()),
            "split_failed": int(tally[TALLY_SPLIT_FAILED + CAUSE_PUNCH]),
            "underused": int(tally[TALLY_UNDERUSED]),
        }


def policy_of(facts: Mapping[str, Any]) -> Policy:
    """How a release backs shmem that may have huge folios.

    Args:
        facts: of a recording: `split` and `shmem_ladder`, as `kernel.differences` has them.
    """
    choices = {"split": str(facts["split"])}
    if not facts["shmem_ladder"]:
        choices["fallocate_sizes"] = "2M,4K"
    return find("shmem-thp").with_choices(choices)


def world(facts: dict[str, Any]) -> ModelShmem:
    """The world for a recording.

    Args:
        facts: of the recording, as `policy_of` needs them.
    """
    return ModelShmem(policy_of(facts))
