"""The model's world for the suite `hugetlb` (L18, L19)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import USED
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.lab.conform.model_files import ModelFile, ModelFiles
from gmemlab.model.guest import GuestMemory


class ModelHugetlb(ModelFiles):
    """Files of 2 MiB pages from a pool.

    Args:
        pages: idle in the pool.
    """

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.host.set_pool("2M", pages)
        self.actions["pool"] = lambda file, step: self.host.set_pool("2M", step.size // PAGE, step.arg)

    def open(self, step: Step) -> GuestMemory:
        """An empty file."""
        return self.host.memory(step.size, "hugetlbfs")

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """Contents only: cachestat does not know hugetlb."""
        return FileSeen(tags=bytes(np.where(pages[:, 3] == USED, file.tags, 0).astype(np.uint8)))

    def counters(self) -> dict[str, int]:
        """Of the pool."""
        pool = self.host.state.pools[0]
        return {"total": int(pool.nr), "free": int(pool.free), "reserved": int(pool.reserved), "surplus": int(pool.surplus)}


def world(facts: dict[str, Any]) -> ModelHugetlb:
    """The world for a recording.

    Args:
        facts: of the recording: `pages` idle in the pool.
    """
    return ModelHugetlb(int(facts["pages"]))
