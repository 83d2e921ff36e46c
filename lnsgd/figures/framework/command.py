"""Reproduce a figure with its claims: the command ``lnsgd reproduce``."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.figure import Figure
from lnsgd.figures.framework.options import BUDGET
from lnsgd.figures.framework.runner import run_figure
from lnsgd.figures.framework.screen import compact, print_claims, print_screen
from lnsgd.figures.framework.summary import claims_record, write_summary
from lnsgd.figures.framework.variants import run_variants
from lnsgd.loggers.wandb import Results, WandbGroup, check_project, send_results
from lnsgd.records.claims import Claim, claims_frame, write_claims
from lnsgd.runs.writing import whole_file


def reproduce(options: Namespace) -> None:
    """Train the missing runs of a figure, judge its claims, draw it and print the last screen.

    Args:
        options: Options of the command, `lnsgd.figures.framework.options.parse`.

    Raises:
        ValueError: an option that the figure does not have, or a project name that W&B does not accept.
        SystemExit: the command was stopped by a signal, code 75.
    """
    console = Console()
    figure = FIGURES[options.figure]
    seeds = figure.scales[options.scale].seeds if options.seeds is None else options.seeds
    out = options.out or _default_folder(figure, options)
    if options.workers is not None and not figure.swept:
        raise ValueError(f"--workers {options.workers}: {figure.name} is not a sweep; leave the option out")
    reproduce_one = _reproduce_variants if options.variants else _reproduce_claims
    try:
        reproduce_one(figure, options, seeds, out, console)
    except SystemExit as stopped:
        if stopped.code == os.EX_TEMPFAIL:
            print("lnsgd: the same command resumes from there", file=sys.stderr)
        raise


def _reproduce_claims(figure: Figure, options: Namespace, seeds: int, out: Path, console: Console) -> None:
    group = None
    if options.wandb is not None:
        check_project(options.wandb)
        group = WandbGroup(f"{figure.name} {options.scale}", options.wandb)
    runs = run_figure(figure, options.scale, seeds, out, console, options.workers, group)
    console.print(f"[bold]{figure.name}[/bold]: judging the claims and drawing the picture")
    claims = figure.claims(runs)
    record = claims_record(figure, options.scale, seeds, runs, claims)
    write_claims(record, out / "claims.json")
    with whole_file(out / f"{figure.name}.png") as part:
        figure.draw(runs).savefig(part, format="png", dpi=150)
    write_summary(record, out / "summary.md")
    if options.all:
        if figure.table is not None:
            console.print(compact(figure.table(runs), console))
            console.print()
        print_claims(console, claims)
    print_screen(console, figure, options.scale, seeds, runs, claims, out)
    if group is not None:
        _send(group, claims, (out / f"{figure.name}.png").read_bytes(), out)


def _default_folder(figure: Figure, options: Namespace) -> Path:
    variants = "-variants" if options.variants else ""
    return Path("runs") / "reproduce" / f"{figure.name}-{options.scale}{variants}"


def _reproduce_variants(figure: Figure, options: Namespace, seeds: int, out: Path, console: Console) -> None:
    budget = BUDGET if options.budget is None else options.budget
    run_variants(figure, options.scale, seeds, out, console, budget, options.workers)


def _send(group: WandbGroup, claims: Sequence[Claim], picture: bytes, out: Path) -> None:
    """Send picture and claims as a run of the group, again as the same run if this folder was sent before."""
    results = Results(tables={"claims": claims_frame(claims)}, pictures={"figure": picture})
    options = {"project": group.project, "group": group.name, "name": f"{group.name} claims", "job_type": "claims"}
    send_results(results, out, same_run=True, **options)
