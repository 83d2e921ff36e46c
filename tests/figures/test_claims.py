"""Claims: the verdict, and the file."""

import json
import math
from pathlib import Path

import pytest

from lnsgd.figures.claims import Claim, judge, write_claims

FIELDS = ["claim", "source", "paper", "measured", "std", "n", "low", "high", "holds"]

VERDICTS = {
    "below-upper-bound": ([0.4], None, 0.5, True),
    "at-upper-bound": ([0.5], None, 0.5, True),
    "above-upper-bound": ([0.6], None, 0.5, False),
    "above-lower-bound": ([1.2], 1.0, None, True),
    "at-lower-bound": ([1.0], 1.0, None, True),
    "below-lower-bound": ([0.9], 1.0, None, False),
    "between": ([2.0], 1.0, 3.0, True),
    "below-both": ([0.0], 1.0, 3.0, False),
    "above-both": ([4.0], 1.0, 3.0, False),
    "bound-of-zero-is-a-bound": ([-0.1], 0.0, None, False),
    "negative": ([-2.0], -3.0, -1.0, True),
    "no-bounds": ([7.0], None, None, True),
    # The verdict is on the mean: single runs may lie outside.
    "mean-inside": ([0.2, 0.7], None, 0.5, True),
    "mean-outside": ([0.2, 1.0], None, 0.5, False),
    "nan": ([math.nan], None, 0.5, False),
    "nan-without-bounds": ([math.nan], None, None, False),
    "one-of-many-is-nan": ([0.1, math.nan, 0.2], None, 0.5, False),
    "infinite": ([math.inf], None, 0.5, False),
    "one-of-many-is-infinite": ([0.1, math.inf], None, 0.5, False),
}


@pytest.mark.parametrize(("measured", "low", "high", "holds"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(measured: list[float], low: float | None, high: float | None, holds: bool) -> None:
    assert judge("c", source="s", paper=0.24, measured=measured, low=low, high=high).holds is holds


def test_mean_and_spread_over_runs() -> None:
    claim = judge("c", source="s", paper=3.0, measured=[1.0, 2.0, 6.0])
    assert claim.measured == 3.0
    assert claim.std == pytest.approx(math.sqrt(7))  # ((−2)² + (−1)² + 3²) / (n − 1) = 14 / 2
    assert claim.n == 3


def test_one_run_has_no_spread() -> None:
    claim = judge("c", source="s", paper=3.0, measured=[1.5])
    assert (claim.measured, claim.std, claim.n) == (1.5, None, 1)


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        judge("c", source="s", paper=1.0, measured=[])


def test_the_paper_has_no_say_in_the_verdict() -> None:
    verdicts = {judge("c", source="s", paper=paper, measured=[0.4], high=0.5).holds for paper in (0.0, 0.4, 100.0)}
    assert verdicts == {True}


def test_file(tmp_path: Path) -> None:
    claims = [
        judge("halves – ½", source="Fig. 5", paper=0.24, measured=[0.2, 0.4], high=0.5),
        judge("rises", source="Fig. 6", paper=2.1, measured=[0.5], low=1.0),
    ]
    path = tmp_path / "new" / "claims.json"
    write_claims(claims, path)
    first, second = json.loads(path.read_text(encoding="utf-8"))
    assert list(first) == list(second) == FIELDS
    assert Claim(**first) == claims[0]
    assert second == {
        "claim": "rises",
        "source": "Fig. 6",
        "paper": 2.1,
        "measured": 0.5,
        "std": None,
        "n": 1,
        "low": 1.0,
        "high": None,
        "holds": False,
    }


def test_file_replaces_an_older_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text("an older one")
    write_claims([], path)
    assert json.loads(path.read_text()) == []
    assert list(tmp_path.iterdir()) == [path]


PRINTED = {
    "number-with-spread": (0.2134, [1.0, 2.0], "0.213", "1.5 ± 0.71 (n = 2)"),
    "one-run": (3, [0.123456], "3", "0.123 (n = 1)"),
    "statement": ("half of 40", [12345.6], "half of 40", "1.23e+04 (n = 1)"),
    "small": (1e-12, [1.5e-16, 1.5e-16], "1e-12", "1.5e-16 ± 0 (n = 2)"),
    "nan": (1.0, [math.nan], "1", "nan (n = 1)"),
}


@pytest.mark.parametrize(("paper", "measured", "stated", "found"), PRINTED.values(), ids=PRINTED)
def test_as_printed(paper: float | str, measured: list[float], stated: str, found: str) -> None:
    claim = judge("c", source="s", paper=paper, measured=measured)
    assert (claim.stated, claim.found) == (stated, found)


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    write_claims([judge("c", source="s", paper=1.0, measured=[math.nan, 1.0], high=2.0)], path)
    (row,) = json.loads(path.read_text())
    assert (row["measured"], row["std"], row["high"], row["holds"]) == (None, None, 2.0, False)
