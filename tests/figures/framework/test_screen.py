"""The last screen of ``lnsgd reproduce``: it fits 80 columns and 24 lines for every figure, and names what failed."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.claims import Claim
from lnsgd.figures.framework.figure import Figure, Runs
from lnsgd.figures.framework.screen import (
    closing_sentence,
    print_claims,
    print_first_comparison,
    print_screen,
    shortened,
)
from lnsgd.records.claims import Kind
from lnsgd.records.verdicts import Verdict
from tests.figures import tiny
from tests.figures.beyond import test_trace_mnist
from tests.figures.cornacchia import (
    test_cornacchia_cifar10,
    test_cornacchia_clusters,
    test_cornacchia_mnist,
    test_cornacchia_sparsity_curve,
)

COLUMNS, LINES = 80, 24
EVERY = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)

# Made-up runs of the figures whose screen compares arms.
COMPARED: Mapping[str, Callable[[Path], Runs]] = {
    "cornacchia-mnist": test_cornacchia_mnist.runs_of,
    "cornacchia-cifar10": test_cornacchia_cifar10.runs_of,
    "cornacchia-sparsity-curve": test_cornacchia_sparsity_curve.both,
    "cornacchia-clusters": test_cornacchia_clusters.runs_of,
    "beyond-trace-mnist": test_trace_mnist.runs_of,
}


def claim(
    text: str, verdict: Verdict, measured: float = 1.0, std: float | None = 0.1, paper: float | str = 2.0
) -> Claim:
    return Claim(text, "paper", "Fig. 0", paper, "mean", measured, std, 3, None, 0.0, None, verdict)


def screen(figure: Figure, runs: Runs, claims: Sequence[Claim], scale: str = "paper") -> list[str]:
    printed = io.StringIO()
    console = Console(file=printed, width=COLUMNS)
    print_screen(console, figure, scale, 100, runs, claims, Path("runs") / "reproduce" / f"{figure.name}-{scale}")
    return printed.getvalue().splitlines()


LONG = "label noise: a statement of which only the beginning has room, 0123456789, and so on and on and on and on"
MANY = [
    *(claim(f"failed {i}, {LONG}", "fails", 123456.789, 23456.789, "rank two (one instance)") for i in range(12)),
    *(claim(f"held {i}, {LONG}", "holds", math.nan, None, 1.2345e-9) for i in range(12)),
]
KINDS: tuple[Kind, ...] = ("paper", "control", "beyond")
CLAIMS = {
    "of-all-kinds-and-verdicts": [
        replace(claim(f"{i}, {LONG}", verdict), kind=kind)
        for kind in KINDS
        for i, verdict in enumerate(("holds", "undecided", "fails") * 8)
    ],
    "many-fail": MANY,
    "all-hold": MANY[12:],
    "one-fails": MANY[11:],
    "one-claim": MANY[12:13],
    "none-holds": MANY[:12],
}


@EVERY
@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
def test_every_figure_fits_a_terminal(figure: Figure, claims: list[Claim], tmp_path: Path) -> None:
    runs = COMPARED[figure.name](tmp_path) if figure.comparison is not None else {}
    lines = screen(figure, runs, claims)
    assert len(lines) < LINES  # the prompt needs one
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith(f"{figure.name}, scale paper, 100 seeds")
    assert f"In runs/reproduce/{figure.name}-paper:" in lines
    assert any(f"{figure.name}.png" in line for line in lines)


def test_made_up_runs_are_of_all_figures_with_a_comparison() -> None:
    assert COMPARED.keys() == {name for name, figure in FIGURES.items() if figure.comparison is not None}


FIRST = [name for name, figure in FIGURES.items() if figure.compared]


@pytest.mark.parametrize("name", FIRST)
def test_the_first_comparison_is_that_of_the_last_screen(name: str, tmp_path: Path) -> None:
    """It needs the runs of the compared arms only, and says how many arms follow."""
    figure, runs = FIGURES[name], COMPARED[name](tmp_path)
    printed = io.StringIO()
    early = {arm: runs[arm] for arm in figure.compared}
    print_first_comparison(Console(file=printed, width=COLUMNS), figure, early, len(runs) - len(early))
    _, *table, _, end, _ = printed.getvalue().splitlines()
    assert "\n".join(table) in "\n".join(screen(figure, runs, []))
    assert all(any(line.startswith(arm) for line in table) for arm in figure.compared)
    assert end == "A first comparison: 5 more arms follow, then the claims and the picture."


THREE = [claim("this holds", "holds"), claim("this is open", "undecided"), claim("this fails", "fails")]


def test_a_comparison_leaves_only_the_claims_that_do_not_hold(tmp_path: Path) -> None:
    figure = tiny.figure(tmp_path, comparison=lambda runs: Table("arm", "title of a column"))
    lines = screen(figure, {}, [*THREE, THREE[0]])
    assert any("title of a column" in line for line in lines)
    assert lines[-1] == "paper: 2 of 4 hold, 1 undecided, 1 fails."
    assert any(line.startswith("fails ") and "this fails" in line and "1.00 ± 0.10" in line for line in lines)
    assert any(line.startswith("undecided ") and "this is open" in line for line in lines)
    assert not any("this holds" in line for line in lines)


def test_without_a_comparison_all_claims_are_listed_and_failed_ones_first() -> None:
    lines = screen(tiny.computed_figure(), {}, THREE)
    verdicts = [line.split()[:3] for line in lines if " this " in line]
    assert verdicts == [["fails", "this", "fails"], ["undecided", "this", "is"], ["holds", "this", "holds"]]


def test_what_has_no_room_is_counted() -> None:
    lines = screen(FIGURES["blanc-escape"], {}, MANY)
    listed = [line for line in lines if line.startswith("fails ")]
    (more,) = [line for line in lines if line.startswith("…")]
    assert (len(listed), more) == (10, "… and 14 more: 12 of 14 hold, 2 fail")
    assert len(lines) == LINES - 1  # no line is wasted


def test_claims_of_each_kind_are_counted_apart() -> None:
    claims = [*THREE, replace(THREE[0], kind="control")]
    lines = screen(tiny.computed_figure(), {}, claims)
    assert lines[-1] == "paper: 1 of 3 holds, 1 undecided, 1 fails; control: 1 of 1 holds."


def test_the_last_sentence_names_what_does_not_hold_failures_first() -> None:
    claims = [replace(one, id=f"claim-{one.verdict}") for one in THREE]
    lines = screen(tiny.computed_figure(), {}, claims)
    assert lines[-1] == "paper: 1 of 3 holds, 1 undecided, 1 fails; not: claim-fails, claim-undecided."


def test_names_without_room_in_the_last_sentence_are_counted() -> None:
    claims = [replace(claim("text", "fails"), id=f"a-claim-with-the-number-{i}") for i in range(20)]
    first, second = closing_sentence(claims, 80)
    assert first == "paper: 0 of 20 hold, 20 fail; not: a-claim-with-the-number-0,"
    assert second == "a-claim-with-the-number-1, a-claim-with-the-number-2 and 17 more."


def test_a_claim_without_room_loses_its_parenthesis_then_whole_words() -> None:
    long = "noise halves the number of active neurons (ratio, training set)"
    assert shortened(long, 63) == long
    assert shortened(long, 62) == "noise halves the number of active neurons"
    assert shortened(long, 40) == "noise halves the number of active …"


def test_all_claims_are_printed_whole() -> None:
    printed = io.StringIO()
    one = replace(claim(LONG, "fails", paper="fewer"), id="an-id", quote="many [words] of the paper", high=3.0)
    print_claims(Console(file=printed, width=COLUMNS), [one])
    lines = printed.getvalue().splitlines()
    assert lines[0] == "fails  an-id"
    assert max(map(len, lines)) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    for part in (
        LONG,
        "measured 1 ± 0.1 (n = 3)",
        "no interval; holds if 0 … 3; paper fewer",
        "“many [words] of the paper”",
    ):
        assert part in text


def test_a_claim_with_brackets_is_printed_as_it_is() -> None:
    lines = screen(tiny.computed_figure(), {}, [claim("U[0, 1] and [red]x[/red]", "holds", paper="[b]")])
    assert any("U[0, 1] and [red]x[/red]" in line and line.rstrip().endswith("[b]") for line in lines)
