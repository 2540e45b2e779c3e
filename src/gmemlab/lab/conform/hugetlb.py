"""The model's world for the suite `hugetlb` (L18, L19)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import USED
from gmemlab.kernel.suites.steps import FileSeen, Step
from gmemlab.lab.conform.model_files import ModelFile, ModelFiles
from gmemlab.model.guest import GuestMemory


class ModelHugetlb(ModelFiles):
    """Files of 2 MiB pages from a pool.

    Args:
        pages: idle in the pool.
        used: pages of the pool that others use.
    """

    def __init__(self, pages: int, used: int) -> None:
        super().__init__()
        self.used = used
        self.host.grow_pool("2M", pages, hvo=False)

    def open(self, step: Step) -> GuestMemory:
        """An empty file."""
        return self.host.memory(step.size, "hugetlbfs")

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """Contents only: cachestat does not know hugetlb."""
        return FileSeen(tags=bytes(np.where(pages[:, 3] == USED, file.tags, 0).astype(np.uint8)))

    def counters(self) -> dict[str, int]:
        """Of the pool."""
        pool = self.host.state.pools[0]
        return {"total": int(pool.nr) + self.used, "free": int(pool.free), "reserved": int(pool.reserved)}


def world(facts: dict[str, Any]) -> ModelHugetlb:
    """The world for a recording.

    Args:
        facts: of the recording: `pages` idle in the pool, and `used` ones.
    """
    return ModelHugetlb(int(facts["pages"]), int(facts["used"]))
