"""Print the last screen of ``lnsgd reproduce``, which fits a terminal of 80 columns and 24 lines."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten, wrap

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lnsgd.console.messages import counted
from lnsgd.console.numbers import between, number, plus_minus
from lnsgd.console.tables import Column, tables
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Figure, Runs
from lnsgd.records.claims import count_claims
from lnsgd.records.verdicts import FAILS, FRACTION, HOLDS, UNDECIDED, counted_verdicts

# One line of the 24 is left for the prompt.
LINES = 23

# What is listed first, and the colour of each verdict.
COLORS = {FAILS: "red", UNDECIDED: "yellow", HOLDS: "green"}
ORDER = list(COLORS)

# The most lines of the sentence at the end, and columns of two of the numbers of a claim.
_END_LINES, _WIDEST_MEASURED, _WIDEST_PAPER = 2, 20, 16

# A wider terminal shows more of a claim, up to this many columns.
WIDEST = 120


def print_screen(
    console: Console, figure: Figure, scale: str, seeds: int, runs: Runs, claims: Sequence[Claim], out: Path
) -> None:
    """Print what came out: the comparison of the main arms, the verdicts, where the files are, and one sentence.

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
        used += _print_comparison(console, figure.comparison(runs))
    files = _files(figure, out)
    listed = sorted(claims, key=lambda claim: ORDER.index(claim.verdict))
    if figure.comparison is not None:
        listed = [claim for claim in listed if not claim.holds]
    end = closing_sentence(claims, console.width)
    if listed:
        _print_claims(console, listed, LINES - used - 2 - len(files) - len(end))  # a line before the files and the end
        console.print()
    for line in [*files, "", *end]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_first_comparison(console: Console, figure: Figure, runs: Runs, following: int) -> None:
    """Print the comparison of the main arms while other arms are still to be trained.

    Args:
        console: Where to print.
        figure: The figure, which has a comparison.
        runs: The runs of its arms, of which those that are compared have finished.
        following: Number of arms that follow.
    """
    assert figure.comparison is not None
    console.print()
    _print_comparison(console, figure.comparison({arm: runs[arm] for arm in figure.compared}))
    arms = f"{counted(following, 'more arm')} {'follows' if following == 1 else 'follow'}"
    console.print(Text(f"A first comparison: {arms}, then the claims and the picture."))
    console.print()


def _print_comparison(console: Console, comparison: Table) -> int:
    """Print a comparison and an empty line; return the number of lines."""
    table = compact(comparison, console)
    for column in table.columns:
        column.no_wrap = True
    console.print(table)
    console.print()
    return 1 + len(console.render_lines(table))


def compact(table: Table, console: Console) -> Table:
    """Remove the frame of a table, and half of the room between its columns if it is too wide for the console."""
    table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    table.title_justify, table.title_style = "left", ""
    if Measurement.get(console, console.options.update(max_width=10_000), table).maximum > console.width:
        table.padding = (0, 1, 0, 0)
    return table


def print_claims(console: Console, claims: Sequence[Claim]) -> None:
    """Print all there is to know of every claim, each in a paragraph that begins with its verdict and its name.

    Args:
        console: Where to print.
        claims: The claims with their verdicts.
    """
    for claim in claims:
        interval = "no interval" if claim.interval is None else f"95 % interval {between(*claim.interval)}"
        source = f"{claim.kind}: {claim.source}" + (f", “{claim.quote}”" if claim.quote else "")
        console.print(Text.assemble((claim.verdict, COLORS[claim.verdict]), f"  {claim.id}"), soft_wrap=True)
        bounds = f"holds if {between(claim.low, claim.high)}"
        for text in (claim.claim, f"measured {claim.found}, {interval}; {bounds}; paper {claim.stated}", source):
            console.print(Padding(Text(text), (0, 0, 0, 2)))
    console.print()


def closing_sentence(claims: Sequence[Claim], width: int) -> list[str]:
    """Say how many claims of each kind hold, and which do not, in at most two lines of whole names.

    Args:
        claims: The claims with their verdicts.
        width: Columns of the terminal.
    """
    counts = count_claims(claims)
    missed = sorted((claim for claim in claims if not claim.holds), key=lambda claim: ORDER.index(claim.verdict))
    for named in range(len(missed), 0, -1):
        rest = f" and {len(missed) - named} more" if named < len(missed) else ""
        lines = _wrapped(f"{counts}; not: {', '.join(claim.id for claim in missed[:named])}{rest}.", width)
        if all(claim.id for claim in missed[:named]) and len(lines) <= _END_LINES:
            return lines
    return _wrapped(f"{counts}.", width)


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _print_claims(console: Console, claims: Sequence[Claim], room: int) -> None:
    """Print a line per claim under a heading, and how many there is no room for."""
    if not claims:
        return
    fit = len(claims) if len(claims) < room else max(0, room - 2)
    listed, left = claims[:fit], claims[fit:]
    verdicts = Column("verdict", [claim.verdict for claim in listed], is_text=True)
    measured = Column("measured", [shortened(_found(claim), _WIDEST_MEASURED) for claim in listed], is_text=True)
    papers = [claim.paper if isinstance(claim.paper, str) else number(claim.paper) for claim in listed]
    paper = Column("paper", [shortened(text, _WIDEST_PAPER) for text in papers], is_text=True)
    others = verdicts.width + measured.width + paper.width + 6
    texts = [shortened(claim.claim, min(console.width, WIDEST) - others) for claim in listed]
    (lines,) = tables([verdicts, Column("claim", texts, is_text=True), measured, paper], [], console.width)
    console.print(Text(lines[0], style="dim"))
    for line, claim in zip(lines[1:], listed):
        text = Text(line)
        text.stylize(COLORS[claim.verdict], 0, len(claim.verdict))
        console.print(text, soft_wrap=True)
    if left:
        console.print(Text(f"… and {len(left)} more: {counted_verdicts(claim.verdict for claim in left)}"))


def _found(claim: Claim) -> str:
    return claim.found if claim.statistic == FRACTION else plus_minus(claim.measured, claim.std)


def shortened(text: str, width: int) -> str:
    """Shorten a text to a width: first without its closing parenthesis, then after a whole word.

    Example:
        >>> shortened("noise halves the active neurons (ratio, step 100)", 40)
        'noise halves the active neurons'
        >>> shortened("noise halves the active neurons (ratio, step 100)", 20)
        'noise halves the …'
    """
    if len(text) <= width:
        return text
    if text.endswith(")") and len(plain := text[: text.rindex(" (")]) <= width:
        return plain
    return shorten(text, width, placeholder=" …", break_on_hyphens=False)


def _files(figure: Figure, out: Path) -> list[str]:
    return [
        f"In {out}:",
        f"  picture  {figure.name}.png",
        "  report   summary.md: every claim with its bounds (also claims.json, --all)",
        f"  page     lnsgd report {out}",
    ]
