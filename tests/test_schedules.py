"""Schedules against lists of steps."""

from decimal import Decimal

import pytest

from lnsgd.schedules import at, every, log_spaced


def due_steps(schedule, last):
    return [step for step in range(last + 1) if schedule(step)]


def log_spaced_list(per_decade, decades):
    """Return the steps nearest to 10^(k/per_decade), in exact arithmetic."""
    points = [Decimal(10) ** (Decimal(k) / per_decade) for k in range(per_decade * decades + 1)]
    return sorted({int(point.to_integral_value()) for point in points})


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, list(range(1, 13))), (2, [2, 4, 6, 8, 10, 12]), (5, [5, 10]), (12, [12]), (13, [])],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_every_is_due_at_multiples(n, expected):
    assert due_steps(every(n), 12) == expected


def test_at_is_true_exactly_there():
    assert due_steps(at([0, 3, 3, 8, 99]), 20) == [0, 3, 8]
    assert due_steps(at([]), 20) == []


def test_log_spaced_by_hand():
    assert due_steps(log_spaced(3), 1000) == [1, 2, 5, 10, 22, 46, 100, 215, 464, 1000]


@pytest.mark.parametrize("per_decade", [1, 2, 3, 7, 10, 40])
def test_log_spaced_equals_a_list(per_decade):
    assert due_steps(log_spaced(per_decade), 10_000) == log_spaced_list(per_decade, 4)


def test_log_spaced_does_not_depend_on_what_was_asked_before():
    schedule = log_spaced(3)
    assert schedule(100)
    assert schedule(5)
    assert not schedule(6)
    assert schedule(100)


@pytest.mark.parametrize("n", [0, -1])
@pytest.mark.parametrize("make", [every, log_spaced], ids=["every", "log_spaced"])
def test_below_one_raises(make, n):
    with pytest.raises(ValueError, match=str(n)):
        make(n)
