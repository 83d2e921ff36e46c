"""Intervals and verdicts, compared with exact binomial sums and with SciPy's distribution of t."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from lnsgd.records.verdicts import (
    DETERMINISTIC,
    FRACTION,
    MEAN,
    counted_verdicts,
    interval_of,
    interval_of_fraction,
    interval_of_mean,
    statistic_of,
    verdict_of,
)


def probability(p: Fraction, n: int, counts: range) -> Fraction:
    """Return the probability that the number of successes of n is in a range, by exact sums."""
    return sum((math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts), Fraction(0))


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_fraction_interval_covers_every_probability_at_least_95_percent(n: int) -> None:
    intervals = [interval_of_fraction(k, n) for k in range(n + 1)]
    for p in (Fraction(i, 200) for i in range(201)):
        covering = [k for k, (low, high) in enumerate(intervals) if low <= p <= high]
        covered = sum((probability(p, n, range(k, k + 1)) for k in covering), Fraction(0))
        assert covered >= Fraction(95, 100)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 5), (5, 5), (17, 20), (1, 100)])
def test_fraction_interval_ends_where_each_tail_is_a_fortieth(successes: int, n: int) -> None:
    low, high = interval_of_fraction(successes, n)
    if successes > 0:
        assert float(probability(Fraction(low), n, range(successes, n + 1))) == pytest.approx(0.025, rel=1e-9)
    if successes < n:
        assert float(probability(Fraction(high), n, range(successes + 1))) == pytest.approx(0.025, rel=1e-9)
    assert (low == 0) == (successes == 0)
    assert (high == 1) == (successes == n)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 to n successes in n ≥ 1 runs"):
        interval_of_fraction(successes, n)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_mean_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert interval_of_mean(values.mean(), values.std(ddof=1), n) == pytest.approx(expected, rel=1e-12)


def test_mean_interval_covers_normal_means_95_percent_of_the_time() -> None:
    """20,000 samples of four normal values; five standard errors are 0.8 %."""
    values = np.random.default_rng(0).normal(1.0, 3.0, (20_000, 4))
    found = [interval_of_mean(mean, std, 4) for mean, std in zip(values.mean(1), values.std(1, ddof=1))]
    covered = np.mean([low <= 1.0 <= high for low, high in filter(None, found)])
    assert covered == pytest.approx(0.95, abs=0.008)


@pytest.mark.parametrize(("mean", "std", "n"), [(1.0, None, 1), (math.nan, 1.0, 3), (math.inf, math.nan, 3)])
def test_no_interval_of_one_value_or_of_values_without_a_mean(mean: float, std: float | None, n: int) -> None:
    assert interval_of_mean(mean, std, n) is None
    assert interval_of(FRACTION, 1.0, None, 1) is None


VERDICTS = {
    "inside": ((0.2, 0.4), 0.1, 0.5, "holds"),
    "touches-both-bounds": ((0.1, 0.5), 0.1, 0.5, "holds"),
    "below": ((0.0, 0.05), 0.1, 0.5, "fails"),
    "above": ((0.6, 0.7), 0.1, 0.5, "fails"),
    "straddles-lower": ((0.0, 0.2), 0.1, 0.5, "undecided"),
    "straddles-upper": ((0.4, 0.6), 0.1, 0.5, "undecided"),
    "contains-both-bounds": ((0.0, 1.0), 0.1, 0.5, "undecided"),
    "no-lower-bound": ((-9.0, 0.4), None, 0.5, "holds"),
    "no-upper-bound": ((0.2, 9.0), 0.1, None, "holds"),
    "no-bounds": ((-9.0, 9.0), None, None, "holds"),
    "bound-of-zero-is-a-bound": ((-0.2, -0.1), 0.0, None, "fails"),
    "no-interval": (None, None, None, "undecided"),
}


@pytest.mark.parametrize(("interval", "low", "high", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(interval: tuple[float, float] | None, low: float | None, high: float | None, verdict: str) -> None:
    assert verdict_of(interval, low, high, MEAN) == verdict
    assert verdict_of(interval, low, high, FRACTION) == verdict
    expected = "fails" if interval is not None and verdict == "undecided" else verdict
    assert verdict_of(interval, low, high, DETERMINISTIC) == expected


@pytest.mark.parametrize("values", [[0, 1, 1], [0, 0], [1, 1, 1, 1], [0] * 19 + [1]])
def test_zeros_and_ones_are_recognized_as_successes(values: list[int]) -> None:
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    assert statistic_of(mean, std, len(values)) == FRACTION
    assert interval_of(FRACTION, mean, std, len(values)) == interval_of_fraction(sum(values), len(values))


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.0, 0.5, 1.0], [2.0, 0.0], [-1.0, 1.0], [0.2, 0.4], [1.0]])
def test_other_values_are_not_taken_for_successes(values: list[float]) -> None:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    assert statistic_of(float(np.mean(values)), std, len(values)) == MEAN


def test_verdicts_are_counted_in_words() -> None:
    assert counted_verdicts(["holds"] * 23 + ["undecided"] * 2 + ["fails"] * 2) == "23 of 27 hold, 2 undecided, 2 fail"
    assert counted_verdicts(["holds", "fails"]) == "1 of 2 holds, 1 fails"
