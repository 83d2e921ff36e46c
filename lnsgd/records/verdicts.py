"""Decide whether a claim holds: 95 % intervals of what was measured, compared with bounds that were fixed before.

A claim says that a number lies in [low, high]. It is measured once for each seed. The claim

* *holds* if the whole interval lies in [low, high],
* *fails* if the interval lies outside,
* is *undecided* if the interval straddles a bound, or if there is no interval: a single run says nothing about others.

What the interval is depends on the statistic:

=================  =====================================================================================
``mean``           Student's t interval of the mean, `interval_of_mean`
``fraction``       Clopper-Pearson interval of the probability of a success, `interval_of_fraction`
``deterministic``  The range of the values. The claim is about each exact computation, so that one value
                   outside the bounds refutes it, and a single run is enough: it holds or it fails.
=================  =====================================================================================
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

Verdict = Literal["holds", "fails", "undecided"]
Statistic = Literal["mean", "fraction", "deterministic"]

HOLDS: Verdict = "holds"
FAILS: Verdict = "fails"
UNDECIDED: Verdict = "undecided"

MEAN: Statistic = "mean"
FRACTION: Statistic = "fraction"
DETERMINISTIC: Statistic = "deterministic"

CONFIDENCE = 0.95

# Means of zeros and ones are fractions up to rounding.
_ROUNDING = 1e-9

Interval = tuple[float, float]


def interval_of_mean(mean: float, std: float | None, n: int) -> Interval | None:
    """Return Student's 95 % confidence interval of a mean, mean ± t₀.₉₇₅(n − 1) · std / √n.

    It is exact for independent normal values (Student, "The probable error of a mean", Biometrika 1908).

    Args:
        mean: Mean of the values.
        std: Their standard deviation with n − 1 in the denominator; ``None`` for one value.
        n: Number of values.

    Returns:
        Both ends; ``None`` for a single value, or if a value is NaN or infinite.

    Example:
        >>> low, high = interval_of_mean(10.0, 1.0, 5)
        >>> round(low, 3), round(high, 3)
        (8.758, 11.242)
    """
    if n < 2 or std is None or not math.isfinite(mean) or not math.isfinite(std):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n)
    return mean - half, mean + half


def interval_of_fraction(successes: int, n: int) -> Interval:
    """Return the 95 % confidence interval of Clopper and Pearson for the probability of a success.

    The lower end is the p at which ``successes`` or more have the probability 2.5 %, and the upper end the p at which
    ``successes`` or fewer have it. Whatever the true p, the interval contains it with a probability of at least 95 %
    (Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934).

    Args:
        successes: Number of successes.
        n: Number of independent runs, at least one.

    Raises:
        ValueError: there are no runs, or the successes are not between 0 and n.

    Example:
        >>> low, high = interval_of_fraction(10, 10)
        >>> round(low, 3), high
        (0.692, 1.0)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes in {n} runs; there must be 0 to n successes in n ≥ 1 runs")
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def verdict_of(interval: Interval | None, low: float | None, high: float | None, statistic: Statistic) -> Verdict:
    """Compare an interval with bounds, see the head of this module.

    Args:
        interval: The interval; ``None`` if there is none.
        low: Lower bound; ``None``: there is none.
        high: Upper bound; ``None``: there is none.
        statistic: What the interval is.

    Example:
        >>> verdict_of((0.2, 0.4), None, 0.5, MEAN), verdict_of((0.2, 0.6), None, 0.5, MEAN)
        ('holds', 'undecided')
        >>> verdict_of((0.2, 0.6), None, 0.5, DETERMINISTIC)
        'fails'
    """
    if interval is None:
        return UNDECIDED
    least, greatest = interval
    lower, upper = -math.inf if low is None else low, math.inf if high is None else high
    if lower <= least and greatest <= upper:
        return HOLDS
    if greatest < lower or upper < least or statistic == DETERMINISTIC:
        return FAILS
    return UNDECIDED


def statistic_of(mean: float, std: float | None, n: int) -> Statistic:
    """Tell a fraction from a mean where only mean, standard deviation and number of the values were kept.

    The values are taken for successes (1) and failures (0) if mean and standard deviation are those of zeros and ones:
    n · mean is an integer from 0 to n, and std² = mean · (1 − mean) · n / (n − 1).

    Args:
        mean: Mean of the values.
        std: Their standard deviation; ``None`` for one value.
        n: Number of values.

    Example:
        >>> statistic_of(0.25, 0.5, 4), statistic_of(0.25, 0.4, 4)
        ('fraction', 'mean')
    """
    if n < 2 or std is None or not 0 <= mean <= 1 or abs(n * mean - round(n * mean)) > _ROUNDING:
        return MEAN
    return FRACTION if math.isclose(std**2, mean * (1 - mean) * n / (n - 1), abs_tol=_ROUNDING) else MEAN


def interval_of(statistic: Statistic, mean: float, std: float | None, n: int) -> Interval | None:
    """Return the interval of a mean or a fraction from what is kept of the values.

    Args:
        statistic: ``mean`` or ``fraction``; the range of a ``deterministic`` claim cannot be computed from these.
        mean: Mean of the values, which is the fraction of successes.
        std: Their standard deviation; ``None`` for one value.
        n: Number of values.
    """
    assert statistic != DETERMINISTIC
    if statistic == MEAN:
        return interval_of_mean(mean, std, n)
    return interval_of_fraction(round(n * mean), n) if n > 1 else None


def counted_verdicts(verdicts: Iterable[Verdict] | Mapping[Verdict, int]) -> str:
    """Count verdicts in words.

    Args:
        verdicts: The verdicts, or how often there is each.

    Example:
        >>> counted_verdicts(["holds", "fails", "holds"]), counted_verdicts({"undecided": 1})
        ('2 of 3 hold, 1 fails', '0 of 1 hold, 1 undecided')
    """
    counts = Counter(verdicts)
    said = [f"{counts[HOLDS]} of {counts.total()} hold{'s' if counts[HOLDS] == 1 else ''}"]
    if counts[UNDECIDED]:
        said.append(f"{counts[UNDECIDED]} undecided")
    if counts[FAILS]:
        said.append(f"{counts[FAILS]} fail{'s' if counts[FAILS] == 1 else ''}")
    return ", ".join(said)
