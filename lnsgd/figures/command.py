"""``lnsgd reproduce``: a figure with its claims, from one command."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lnsgd.figures.catalogue import FIGURES
from lnsgd.figures.claims import Claim, claims_frame, write_claims
from lnsgd.figures.runner import run_figure
from lnsgd.figures.summary import write_summary
from lnsgd.loggers.wandb import Results, WandbGroup, check_project, send_results
from lnsgd.messages import CommandParser
from lnsgd.writing import whole_file


def reproduce(args: list[str]) -> None:
    """Trains what is missing, prints the table and the claims, draws the figure, says where everything is.

    Raises:
        ValueError: an unknown figure or scale, no seeds, or a project that W&B does not take.
        SystemExit: it was stopped by a signal, code 75.
    """
    console = Console()
    options = _parse(args)
    if options.figure == "list":
        console.print(_listing())
        return
    figure = FIGURES[options.figure]
    if options.scale not in figure.scales:
        raise ValueError(f"{figure.name} has no scale {options.scale!r}; choose one of {', '.join(figure.scales)}")
    seeds = figure.scales[options.scale].seeds if options.seeds is None else options.seeds
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}; give at least 1")
    out = options.out or Path("runs") / "reproduce" / f"{figure.name}-{options.scale}"
    if options.workers is not None and not figure.swept:
        raise ValueError(f"--workers {options.workers}: {figure.name} is no sweep; leave it out")
    group = None
    if options.wandb is not None:
        check_project(options.wandb)
        group = WandbGroup(f"{figure.name} {options.scale}", options.wandb)
    try:
        runs = run_figure(figure, options.scale, seeds, out, console, options.workers, group)
    except SystemExit as stopped:
        if stopped.code == os.EX_TEMPFAIL:
            print("lnsgd: the same command goes on from there", file=sys.stderr)
        raise
    claims = figure.claims(runs)
    write_claims(claims, out / "claims.json")
    with whole_file(out / f"{figure.name}.png") as part:
        figure.draw(runs).savefig(part, format="png", dpi=150)
    write_summary(figure, options.scale, seeds, runs, claims, out / "summary.md")
    if figure.table is not None:
        console.print(figure.table(runs))
    console.print(claims_table(claims))
    console.print(f"Figure: {out / f'{figure.name}.png'}\nClaims: {out / 'claims.json'}\nRuns:   {out}")
    if group is not None:
        _send(group, claims, (out / f"{figure.name}.png").read_bytes(), out)


def _send(group: WandbGroup, claims: Sequence[Claim], picture: bytes, out: Path) -> None:
    """Sends picture and claims as a run of the group, that which was sent from this folder before if there is one."""
    results = Results(tables={"claims": claims_frame(claims)}, pictures={"figure": picture})
    options = {"project": group.project, "group": group.name, "name": f"{group.name} claims", "job_type": "claims"}
    send_results(results, out, same_run=True, **options)


def _parse(args: list[str]) -> Namespace:
    parser = CommandParser(
        "lnsgd reproduce", description="Reproduce a figure of a paper; `lnsgd reproduce list` lists them."
    )
    parser.add_argument("figure", choices=["list", *FIGURES])
    parser.add_argument("--scale", default="ci", help="ci (seconds, the default) or paper")
    parser.add_argument("--seeds", type=int, help="seeds of each arm (default: as fits the scale)")
    parser.add_argument("--out", type=Path, help="folder (default: runs/reproduce/FIGURE-SCALE)")
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="lnsgd",
        metavar="PROJECT",
        help="track every run, and at the end picture and claims, in Weights & Biases (project: lnsgd)",
    )
    parser.add_argument("--workers", type=int, help="jobs at the same time, of figures that are sweeps (as fits)")
    return parser.parse_args(args)


def _listing() -> Table:
    table = Table("figure", "scales (seeds)", "what it shows")
    for figure in FIGURES.values():
        scales = ", ".join(f"{name} ({scale.seeds})" for name, scale in figure.scales.items())
        table.add_row(figure.name, scales, figure.title)
    return table


def claims_table(claims: list[Claim]) -> Table:
    """Claims as printed: paper against measured, those that do not hold in red."""
    table = Table("claim", "source", "paper", "measured", "holds", title="Paper vs measured")
    for c in claims:
        verdict = "[green]yes[/green]" if c.holds else "[red]no[/red]"
        table.add_row(c.claim, c.source, c.stated, c.found, verdict)
    return table
