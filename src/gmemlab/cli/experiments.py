"""``gmemlab experiments``: the catalogue, and its verdicts."""

from typing import Annotated, Final

import typer

from gmemlab.cli.options import Ticker
from gmemlab.cli.output import console, print_json
from gmemlab.errors import UsageError

RUN: Final = "run"


def run(
    words: Annotated[list[str] | None, typer.Argument(metavar="run NAME", help="Which to run; by default all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: stable keys, nanoseconds.")] = False,
) -> int:
    """List the experiments, or run them and print a verdict for each.

    Args:
        words: nothing, or run and names.
        json: whether to print JSON instead.

    Raises:
        UsageError: something else than `run`, or an unknown experiment.
    """
    action, *names = words or [""]
    if action not in ("", RUN):
        raise UsageError("not something to do with experiments", value=action, allowed="nothing, or run and names")
    with Ticker() as ticker:
        from gmemlab.lab.experiments.catalogue import MISS, chosen
        from gmemlab.report.experiments import described, outcome_as_json, print_catalogue, print_outcome

        experiments = chosen(names)
        if action == RUN:
            outcomes = []
            for experiment in experiments:
                name = experiment.name
                outcome = experiment.run(lambda what, share, name=name: ticker.show(f"{name}: {what}", share))  # type: ignore[misc]
                ticker.clear()
                outcomes.append(outcome)
                if not json:
                    print_outcome(console(), experiment, outcome)
    if action != RUN:
        if json:
            print_json({"experiments": [described(experiment) for experiment in experiments]})
        else:
            print_catalogue(console(), experiments)
        return 0
    if json:
        pairs = zip(experiments, outcomes, strict=True)
        print_json({"experiments": [outcome_as_json(experiment, outcome) for experiment, outcome in pairs]})
    return int(any(outcome.verdict == MISS for outcome in outcomes))
