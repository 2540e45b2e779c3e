"""What a fault is that `test_seeded_faults.py` seeds; `faults.py` lists them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What is wrong, the file of core/ and the text that is replaced in it, and tests of which one must fail."""

    name: str
    file: str
    before: str
    after: str
    caught_by: tuple[str, ...]

    def seed(self, source: str) -> str:
        """The file's text with the fault."""
        assert source.count(self.before) == 1, f"{self.name}: {self.file} must hold exactly once: {self.before}"
        return source.replace(self.before, self.after)
