"""The model's world for the suite `hugetlb-1g` (L20)."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import USED
from gmemlab.kernel.suites.hugetlb_1g import GIGA, HUGE, POOLS, UNITS
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step
from gmemlab.lab.conform.model_files import ModelFile, ModelFiles
from gmemlab.model.guest import GuestMemory
from gmemlab.model.host import Host
from gmemlab.presets import find

HOST_SIZE: Final = "4G"


class ModelPools(ModelFiles):
    """Files of both page sizes, and the two pools.

    Args:
        pages: of 1 GiB, idle at the start.
        used: pages of the pool of 2 MiB that others use.
    """

    def __init__(self, pages: int, used: int) -> None:
        super().__init__()
        self.pages = pages
        self.used = used
        self.renew()

    def renew(self) -> None:
        """No files, and only 1 GiB pages in the pools."""
        for number in list(self.files):
            self._close(number)
        self.host.audit()
        self.host = Host(HOST_SIZE)
        self.host.grow_pool(GIGA, self.pages, hvo=False)

    def open(self, step: Step) -> GuestMemory:
        """A file of the page size that its number stands for."""
        sizes = "1G" if UNITS[step.file] == GIGA else "2M"
        return self.host.memory(step.size, find("hugetlbfs").with_choices({"sizes": sizes}))

    def seen(self, file: ModelFile, pages: NDArray[np.int64]) -> FileSeen:
        """The tag of the first page of each 2 MiB."""
        tags = np.where(pages[:, 3] == USED, file.tags, 0).astype(np.uint8)
        return FileSeen(tags=bytes(tags[:: HUGE // PAGE]))

    def _apply(self, step: Step) -> int:
        if step.op == "demote":
            self.host.demote_pages(step.arg)
            return 0
        if step.op == "renew":
            self.renew()
            return 0
        return super()._apply(step)

    def counters(self) -> dict[str, int]:
        """Of both pools."""
        counters: dict[str, int] = {}
        for name, used, pool in zip(POOLS, (0, self.used), reversed(self.host.state.pools), strict=True):
            counters |= {
                f"total_{name}": int(pool.nr) + used, f"free_{name}": int(pool.free), f"reserved_{name}": int(pool.reserved),
            }  # fmt: skip
        return counters


def world(facts: dict[str, Any]) -> ModelPools:
    """The world for a recording.

    Args:
        facts: of the recording: `pages` of 1 GiB idle in the pool, and `used` ones of 2 MiB.
    """
    return ModelPools(int(facts["pages"]), int(facts["used"]))
