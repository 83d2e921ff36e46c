"""Claims: what a figure states becomes a claim with its verdict."""

import math

import numpy as np
import pandas as pd
import pytest

from lnsgd.figures.framework.claims import BEYOND, CONTROL, Claim, interval_of_fraction, judge, slug
from lnsgd.figures.framework.statements import Statement
from lnsgd.records.verdicts import interval_of_mean

FALLS = Statement("smith/falls", "Smith", "Fig. 5", "it falls by half")


def claim(measured: object, **options: object) -> Claim:
    return judge("c", "c", CONTROL, source="s", measured=measured, **options)  # type: ignore[arg-type]


def test_a_claim_on_a_statement_has_its_source_and_quotation() -> None:
    found = judge("falls", "it falls", FALLS, measured=[0.2, 0.3], high=0.9, paper=0.24)
    assert (found.kind, found.statement, found.source) == ("paper", "smith/falls", "Smith, Fig. 5")
    assert (found.quote, found.paper, found.id) == ("it falls by half", 0.24, "falls")


@pytest.mark.parametrize("kind", [CONTROL, BEYOND])
def test_a_claim_of_our_own_has_a_source_and_no_quotation(kind: str) -> None:
    found = judge("c", "c", kind, source="derived", measured=[1.0])  # type: ignore[arg-type]
    assert (found.kind, found.source, found.quote, found.statement) == (kind, "derived", "", "")


def test_numbers_are_judged_by_their_mean() -> None:
    found = claim([1.0, 2.0, 6.0], low=0.0)
    assert (found.measured, found.n, found.statistic) == (3.0, 3, "mean")
    assert found.std == pytest.approx(math.sqrt(7))  # ((−2)² + (−1)² + 3²) / (n − 1) = 14 / 2
    assert found.interval == interval_of_mean(3.0, found.std, 3)
    assert found.verdict == "undecided"  # the interval is −3.6 to 9.6


@pytest.mark.parametrize("values", [[True] * 7 + [False] * 3, np.arange(10) < 7, pd.Series(np.arange(10) < 7)])
def test_truth_values_are_judged_by_the_fraction_that_is_true(values: object) -> None:
    found = claim(values, low=0.3)
    assert (found.measured, found.n, found.statistic, found.found) == (0.7, 10, "fraction", "7 of 10")
    assert found.interval == interval_of_fraction(7, 10)
    assert found.verdict == "holds"
    assert claim(values, low=0.4).verdict == "undecided"
    assert claim(values, low=0.95).verdict == "fails"


def test_a_deterministic_claim_holds_of_every_value_or_fails() -> None:
    assert claim([1.0, 2.0], low=1.0, deterministic=True).verdict == "holds"
    assert claim([1.0, 0.999], low=1.0, deterministic=True).verdict == "fails"
    assert claim([True, True], low=1.0, deterministic=True).interval == (1.0, 1.0)
    assert claim([0.5], high=1.0, deterministic=True).verdict == "holds"


@pytest.mark.parametrize("value", [0.5, True])
def test_one_run_decides_nothing(value: float) -> None:
    found = claim([value], low=0.0)
    assert (found.n, found.std, found.interval, found.verdict) == (1, None, None, "undecided")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("deterministic", [False, True])
def test_numbers_that_are_not_finite_decide_nothing(bad: float, deterministic: bool) -> None:
    found = claim([0.1, bad, 0.2], high=0.5, deterministic=deterministic)
    assert (found.interval, found.verdict) == (None, "undecided")


def test_the_papers_number_does_not_change_the_verdict() -> None:
    assert {claim([0.4, 0.41], high=0.9, paper=paper).verdict for paper in (0.0, 0.4, 100.0, "more")} == {"holds"}


def test_the_reason_is_kept_of_a_claim_that_fails() -> None:
    assert claim([1.0, 1.1], low=5.0, why="The rate is too high.").why == "The rate is too high."
    assert claim([1.0, 1.1], low=0.5, why="The rate is too high.").why == ""


REFUSED = {
    "nothing-measured": (("c", CONTROL), {"measured": [], "source": "s"}, "at least one is needed"),
    "id-with-spaces": (("a b", CONTROL), {"measured": [1.0], "source": "s"}, "lower-case words and hyphens"),
    "no-id": (("", CONTROL), {"measured": [1.0], "source": "s"}, "lower-case words and hyphens"),
    "control-without-source": (("c", CONTROL), {"measured": [1.0]}, "give a source for a control"),
    "statement-with-source": (("c", FALLS), {"measured": [1.0], "source": "s"}, "none for a statement"),
}


@pytest.mark.parametrize(("names", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_incomplete_claims_are_refused(names: tuple[str, Statement], options: dict, message: str) -> None:
    id, of = names
    with pytest.raises(ValueError, match=message):
        judge(id, "c", of, **options)


PRINTED = {
    "number-with-spread": (0.2134, [1.0, 2.0], "0.213", "1.5 ± 0.71 (n = 2)"),
    "one-run": (3, [0.123456], "3", "0.123 (n = 1)"),
    "word": ("half of 40", [12345.6], "half of 40", "1.23e+04 (n = 1)"),
    "small": (1e-12, [1.5e-16, 1.5e-16], "1e-12", "1.5e-16 ± 0 (n = 2)"),
    "nan": (1.0, [math.nan], "1", "nan (n = 1)"),
    "successes": ("all", [True, True, False], "all", "2 of 3"),
    "no-number-of-the-paper": ("", [1.5], "", "1.5 (n = 1)"),
}


@pytest.mark.parametrize(("paper", "measured", "stated", "found"), PRINTED.values(), ids=PRINTED)
def test_as_printed(paper: float | str, measured: list[float], stated: str, found: str) -> None:
    made = claim(measured, paper=paper)
    assert (made.stated, made.found) == (stated, found)


def test_names_of_arms_become_parts_of_ids() -> None:
    assert slug("η = 0.01, σ = 0.4") == "0-01-0-4"
    assert judge(f"{slug('MNIST, squared loss (A)')}-width", "c", BEYOND, source="s", measured=[1.0]).id
