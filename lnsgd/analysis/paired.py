"""The same measure of two networks, and the difference with its error."""

import copy
from collections.abc import Callable, Sequence
from math import hypot, isnan, nan
from statistics import fmean, stdev
from typing import NamedTuple

from lnsgd.analysis.measuring import Measure
from lnsgd.callbacks import HessianTrace
from lnsgd.callbacks.measurements import Measurement

# Of two networks: the rows of one measure of each.
Both = tuple[Sequence[Measurement], Sequence[Measurement]]

# A tolerance that the fewest probes meet.
_LOOSE = 1e9


class Difference(NamedTuple):
    """A number of two networks A and B.

    Attributes:
        split: See `Measurement`.
        measure: The same.
        layer: The same.
        a: Of A.
        b: Of B.
        difference: b − a.
        stderr: Standard error of the difference; NaN where it is exact.
        stderr_a: That of a.
        stderr_b: That of b.
    """

    split: str
    measure: str
    layer: str
    a: float
    b: float
    difference: float
    stderr: float
    stderr_a: float
    stderr_b: float


def differences(measure: Measure, of_both: Callable[[Measure], Both], rounds: int) -> list[Difference]:
    """A measure of two networks, paired.

    What is estimated from random probes (`lnsgd.callbacks.HessianTrace`) is taken in rounds of few probes each, every
    round with probes of its own, which both networks have in common. The error of the difference is that of its mean
    over rounds. Alike networks have alike errors, which cancel. For other estimates with an error (a spectrum's trace)
    the errors are taken to be independent.

    Args:
        measure: What is measured.
        of_both: Takes a measure of both networks, on the same data.
        rounds: How many, at least 2.

    Raises:
        ValueError: fewer than 2 rounds.
    """
    check_rounds(rounds)
    if not isinstance(measure, HessianTrace):
        return [_single(a, b) for a, b in _matched(of_both(measure))]
    found = of_both(_round(measure, 0))
    if not any(row.stderr > 0 for rows in found for row in rows):  # exact, without probes
        return [_single(a, b) for a, b in _matched(found)]
    each = [_matched(found), *(_matched(of_both(_round(measure, number))) for number in range(1, rounds))]
    return [_over_rounds(of_row) for of_row in zip(*each)]


def check_rounds(rounds: int) -> None:
    """Raises ValueError for too few rounds of `differences`."""
    if rounds < 2:
        raise ValueError(f"rounds = {rounds}; at least 2 are needed for an error of the difference")


def _round(measure: HessianTrace, number: int) -> HessianTrace:
    """The measure with few probes of its own."""
    one = copy.copy(measure)
    one.seed, one.rtol = measure.seed + number, _LOOSE
    return one


def _matched(found: Both) -> list[tuple[Measurement, Measurement]]:
    """Rows of what both networks have, beside each other."""
    of_b = {(row.measure, row.split, row.layer): row for row in found[1]}
    names = [(row.measure, row.split, row.layer) for row in found[0]]
    return [(row, of_b[name]) for name, row in zip(names, found[0]) if name in of_b]


def _single(a: Measurement, b: Measurement) -> Difference:
    error = nan if isnan(a.stderr) and isnan(b.stderr) else hypot(*(e for e in (a.stderr, b.stderr) if not isnan(e)))
    return Difference(a.split, a.measure, a.layer, a.value, b.value, b.value - a.value, error, a.stderr, b.stderr)


def _over_rounds(each: Sequence[tuple[Measurement, Measurement]]) -> Difference:
    first, root = each[0][0], len(each) ** 0.5
    a, b = [row.value for row, _ in each], [row.value for _, row in each]
    apart = [two - one for one, two in zip(a, b)]
    errors = (stdev(values) / root for values in (apart, a, b))
    return Difference(first.split, first.measure, first.layer, fmean(a), fmean(b), fmean(apart), *errors)


def over_pairs(pairs: Sequence[Difference]) -> Difference:
    """The mean difference of one number over pairs of networks, its error from their spread; of one pair, its own."""
    if len(pairs) == 1:
        return pairs[0]
    first, root = pairs[0], len(pairs) ** 0.5
    columns = {name: [getattr(pair, name) for pair in pairs] for name in ("difference", "a", "b")}
    errors = (stdev(values) / root for values in columns.values())
    means = (fmean(columns[name]) for name in ("a", "b", "difference"))
    return Difference(first.split, first.measure, first.layer, *means, *errors)
