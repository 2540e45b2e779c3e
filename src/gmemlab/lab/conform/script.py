"""A mismatch as a program that shows it on the running kernel, to read and to run."""

from collections.abc import Sequence

from gmemlab.kernel.suites.steps import Step
from gmemlab.kernel.suites.table import Suite
from gmemlab.lab.conform.judge import Mismatch

_HEAD = '''"""{title}

{differences}
"""

from gmemlab.kernel.suites.replay import replay
from gmemlab.kernel.suites.steps import Step

replay(
    "{suite}",
    [
{steps}
    ],
)
'''


def script(suite: Suite, steps: Sequence[Step], mismatch: Mismatch) -> str:
    """The program's text.

    Args:
        suite: where the steps belong.
        steps: the shortest sequence.
        mismatch: what it shows after its last step.
    """
    return _HEAD.format(
        title=f"Suite {suite.name}: kernel and model differ after {len(steps)} step{'s' if len(steps) != 1 else ''}.",
        differences="\n".join(mismatch.differences),
        suite=suite.name,
        steps="\n".join(f"        {_line(step)}," for step in steps),
    )


def _line(step: Step) -> str:
    """A step as Python, without what it does not use."""
    named = [f"{name}={value:#x}" for name, value in zip(Step._fields[1:], step[1:], strict=True) if value]
    return f"Step({', '.join([repr(step.op), *named])})"
