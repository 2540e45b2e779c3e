"""How experiments look: the catalogue, and of each that was run its figures beside the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.lab.experiments.catalogue import AGREES, MISS, NO_TEST, SHOWN, Experiment, Outcome
from gmemlab.report.table import DIM, print_paragraph

_STYLES: Final[Mapping[str, str]] = {AGREES: "green", MISS: "bold red", NO_TEST: "yellow", SHOWN: DIM}


def print_catalogue(screen: Console, experiments: Sequence[Experiment]) -> None:
    """Print what there is to be run."""
    for experiment in experiments:
        screen.print(Text(experiment.name, style="bold").append(f": {experiment.title}", style="not bold"), soft_wrap=True)
        print_paragraph(screen, experiment.statement)
        print_paragraph(screen, f"Source: {experiment.source}.", style=DIM)
        screen.print()
    screen.print("To run some, or all: gmemlab experiments run [NAME...]")


def print_outcome(screen: Console, experiment: Experiment, outcome: Outcome) -> None:
    """Print an experiment: statement, procedure, figures, what they mean, what they leave out."""
    head = Text(experiment.name, style="bold").append(f": {experiment.title}: ", style="not bold")
    screen.print(head.append(outcome.verdict, style=_STYLES[outcome.verdict]), soft_wrap=True)
    print_paragraph(screen, experiment.statement)
    print_paragraph(screen, f"Source: {experiment.source}.", style=DIM)
    print_paragraph(screen, f"Procedure: {experiment.procedure}", style=DIM)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=DIM)
    table.add_column("")
    for header in ("model", "published", "verdict", ""):
        table.add_column(header, justify="right" if header in ("model", "published") else "left", no_wrap=True)
    remarks = list(dict.fromkeys(check.remark for check in outcome.checks if check.remark))
    for check in outcome.checks:
        mark = Text(f"[{remarks.index(check.remark) + 1}]" if check.remark else "", style=DIM)
        verdict = Text("" if check.verdict == SHOWN else check.verdict, style=_STYLES[check.verdict])
        table.add_row(check.what, check.model, check.published, verdict, mark)
    screen.print()
    screen.print(table)
    for number, remark in enumerate(remarks, 1):
        print_paragraph(screen, f"[{number}] {remark}.", style=DIM)
    screen.print()
    for sentence in outcome.sentences:
        print_paragraph(screen, sentence)
    for limit in experiment.limits:
        print_paragraph(screen, f"Limit: {limit}.", style=DIM)
    screen.print()


def described(experiment: Experiment) -> dict[str, Any]:
    """Return what an experiment is, as plain data."""
    return {
        "name": experiment.name,
        "title": experiment.title,
        "statement": experiment.statement,
        "source": experiment.source,
        "procedure": experiment.procedure,
        "limits": list(experiment.limits),
    }


def outcome_as_json(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Return an experiment with what it found, as plain data."""
    return {
        **described(experiment),
        "verdict": outcome.verdict,
        "checks": [asdict(check) for check in outcome.checks],
        "sentences": list(outcome.sentences),
    }
