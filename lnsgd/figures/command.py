"""``lnsgd reproduce``: a figure with its claims, from one command."""

from argparse import ArgumentError, ArgumentParser, Namespace
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from lnsgd.figures.claims import Claim, write_claims
from lnsgd.figures.figure import Figure
from lnsgd.figures.mnist_sparsity import FIGURE as MNIST_SPARSITY
from lnsgd.figures.runner import run_figure
from lnsgd.run_folder import whole_file

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (MNIST_SPARSITY,)}


class _Parser(ArgumentParser):
    """Errors are raised, not printed."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


def reproduce(args: list[str]) -> None:
    """Trains what is missing, prints the table and the claims, draws the figure, says where everything is.

    Raises:
        ArgumentError, ValueError: an unknown figure or scale, or no seeds.
    """
    console = Console()
    options = _parse(args)
    if options.figure == "list":
        console.print(_listing())
        return
    figure = FIGURES[options.figure]
    scale = options.scale or next(iter(figure.scales))
    if scale not in figure.scales:
        raise ValueError(f"{figure.name} has no scale {scale!r}; choose one of {', '.join(figure.scales)}")
    if options.seeds < 1:
        raise ValueError(f"--seeds {options.seeds}; give at least 1")
    out = options.out or Path("runs") / "reproduce" / f"{figure.name}-{scale}"
    runs = run_figure(figure, scale, options.seeds, out, console)
    claims = figure.claims(runs)
    write_claims(claims, out / "claims.json")
    with whole_file(out / f"{figure.name}.png") as part:
        figure.draw(runs).savefig(part, format="png", dpi=150)
    console.print(figure.table(runs), claims_table(claims))
    console.print(f"Figure: {out / f'{figure.name}.png'}\nClaims: {out / 'claims.json'}\nRuns:   {out}")


def _parse(args: list[str]) -> Namespace:
    parser = _Parser("lnsgd reproduce", description="Reproduce a figure of a paper; `lnsgd reproduce list` lists them.")
    parser.add_argument("figure", choices=["list", *FIGURES])
    parser.add_argument("--scale", help="size of the runs; by default the smallest")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm (default: 1)")
    parser.add_argument("--out", type=Path, help="folder (default: runs/reproduce/FIGURE-SCALE)")
    return parser.parse_args(args)


def _listing() -> Table:
    table = Table("figure", "scales", "what it shows")
    for figure in FIGURES.values():
        table.add_row(figure.name, ", ".join(figure.scales), figure.title)
    return table


def claims_table(claims: list[Claim]) -> Table:
    """Claims as printed: paper against measured, those that do not hold in red."""
    table = Table("claim", "source", "paper", "measured", "holds", title="Paper vs measured")
    for c in claims:
        spread = "" if c.std is None else f" ± {c.std:.2g}"
        verdict = "[green]yes[/green]" if c.holds else "[red]no[/red]"
        paper = c.paper if isinstance(c.paper, str) else f"{c.paper:.3g}"
        table.add_row(c.claim, c.source, paper, f"{c.measured:.3g}{spread} (n = {c.n})", verdict)
    return table
