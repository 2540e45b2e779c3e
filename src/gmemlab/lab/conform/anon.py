"""The model's world for the suite `anon` (L16, L17)."""

from typing import Any

from gmemlab.kernel.suites.anon import COUNTED
from gmemlab.kernel.suites.steps import Step
from gmemlab.lab.conform.model_files import ModelFile
from gmemlab.lab.conform.thp import ModelShmem
from gmemlab.presets import find


class ModelAnonymous(ModelShmem):
    """Anonymous memory in 2 MiB folios; a part that is given back stays charged with its folio until that is split."""

    def __init__(self) -> None:
        super().__init__(find("anon-thp"))
        self.actions |= {
            "free": lambda file, step: file.memory.free_lazily(step.offset, step.size),
            "shrink": self.shrink,
        }

    def shrink(self, file: ModelFile, step: Step) -> None:
        """The deferred-split shrinker looks at every mapping; the step says how many zeros it lets pass."""
        for other in self.files.values():
            other.memory.split_deferred(step.arg)

    def counters(self) -> dict[str, int]:
        """Without the splits that failed, as the live world counts."""
        counters = super().counters()
        return {name: counters[name] for name in COUNTED}


def world(facts: dict[str, Any]) -> ModelAnonymous:
    """The world for a recording.

    Args:
        facts: of the recording; none are needed.
    """
    return ModelAnonymous()
