"""Print the last screen of ``lnsgd reproduce``, which fits a terminal of 80 columns and 24 lines."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lnsgd.console.messages import counted
from lnsgd.console.numbers import number, plus_minus
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Figure, Runs
from lnsgd.records.claims import count_claims
from lnsgd.records.verdicts import FAILS, FRACTION, HOLDS, UNDECIDED, counted_verdicts

# One line of the 24 is left for the prompt.
LINES = 23

# What is listed first, and the colour of each verdict.
COLORS = {FAILS: "red", UNDECIDED: "yellow", HOLDS: "green"}
ORDER = list(COLORS)

# A wider terminal shows more of a claim, up to this many columns.
WIDEST = 120


def print_screen(
    console: Console, figure: Figure, scale: str, seeds: int, runs: Runs, claims: Sequence[Claim], out: Path
) -> None:
    """Print what came out: the comparison of the main arms, the verdicts, and where the files are.

    A figure without a comparison lists as many claims as there is room for, those that fail first and those that hold
    last. One with a comparison lists only those that fail or are undecided.

    Args:
        console: Where to print.
        figure: The figure.
        scale: The scale that was run.
        seeds: Number of seeds of each arm.
        runs: The finished run of each arm.
        claims: The claims with their verdicts.
        out: Folder of the figure.
    """
    console.print(Text(f"{figure.name}, scale {scale}, {counted(seeds, 'seed')}", style="bold"))
    console.print(Text(figure.title))
    console.print()
    used = 2 + len(console.render_lines(Text(figure.title)))
    if figure.comparison is not None:
        table = _compact(figure.comparison(runs))
        console.print(table)
        console.print()
        used += 1 + len(console.render_lines(table))
    files = _files(figure, out)
    listed = sorted(claims, key=lambda claim: ORDER.index(claim.verdict))
    if figure.comparison is not None:
        listed = [claim for claim in listed if not claim.holds]
    counts = Text(count_claims(claims))
    console.print(counts)
    used += len(console.render_lines(counts))
    _print_claims(console, listed, LINES - used - 1 - len(files))  # a line before the files
    console.print()
    for line in files:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _compact(table: Table) -> Table:
    """Remove the frame of a table, so that it is as short as its content, and never break a cell."""
    table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    table.title_justify, table.title_style = "left", ""
    for column in table.columns:
        column.no_wrap = True
    return table


def verdict_text(claim: Claim) -> Text:
    """Return the verdict of a claim in its colour."""
    return Text(claim.verdict, style=COLORS[claim.verdict])


def _print_claims(console: Console, claims: Sequence[Claim], room: int) -> None:
    """Print a line per claim under a heading, and how many there is no room for."""
    if not claims:
        return
    fit = len(claims) if len(claims) < room else room - 2
    table = Table(box=None, pad_edge=False, width=min(console.width, WIDEST), header_style="dim")
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("measured", no_wrap=True, max_width=20, overflow="ellipsis")
    table.add_column("paper", no_wrap=True, max_width=16, overflow="ellipsis")
    for claim in claims[:fit]:
        paper = claim.paper if isinstance(claim.paper, str) else number(claim.paper)
        found = claim.found if claim.statistic == FRACTION else plus_minus(claim.measured, claim.std)
        table.add_row(verdict_text(claim), Text(claim.claim), Text(found), Text(paper))
    console.print(table)
    if left := claims[fit:]:
        console.print(Text(f"… and {len(left)} more: {counted_verdicts(claim.verdict for claim in left)}"))


def _files(figure: Figure, out: Path) -> list[str]:
    return [
        f"In {out}:",
        f"  picture  {figure.name}.png",
        "  report   summary.md: every claim with its bounds (also claims.json, --claims)",
        f"  page     lnsgd report {out}",
    ]
