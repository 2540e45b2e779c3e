"""Take steps on the running kernel and print what came of each: what the scripts of `gmemlab conform` call."""

from collections.abc import Sequence

from gmemlab.kernel.quiet import quiet
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.steps import Step, drive
from gmemlab.kernel.suites.table import find


def replay(suite: str, steps: Sequence[Step]) -> None:
    """Print each step with what the kernel showed after it.

    Args:
        suite: its name.
        steps: in order.

    Raises:
        UnsupportedError: this kernel lacks what the suite needs.
    """
    with Settings() as settings:
        if find(suite).quiet:
            quiet(settings)
        world, _ = find(suite).load().live(settings)
        try:
            for step, seen in drive(world, steps):
                print(step)
                print(f"    errno {seen.errno}, {seen.done} pages done")
                for number, file in seen.files.items():
                    print(f"    file {number}: {file}")
                if seen.counters:
                    print(f"    {dict(seen.counters)}")
        finally:
            world.close()
