"""Compute the coordinates of small line plots.

The axis of steps is logarithmic; step 0, which has no place there, is drawn apart at the left end. The axis of values
is logarithmic if all means are positive and the largest is at least `LOG_FROM` times the smallest.
"""

import math
from collections.abc import Sequence

import numpy as np

from lnsgd.console.numbers import number
from lnsgd.records.measures import HEADLINES, WHOLE
from lnsgd.report.content import Line, Plot, Plots, Tick
from lnsgd.report.plot_area import BOTTOM, LEFT, RIGHT, TOP
from lnsgd.report.trajectories import Curve, Trajectory

LOG_FROM = 100

# The most points of a curve, evenly spread over the axis.
_POINTS = 150

_X_TICKS, _Y_TICKS = 5, 4

# A tick at the end of an axis is not lost because its quotient is rounded.
_ROUNDING = 1e-9

# The fewest measurements that are joined by a line.
_TREND = 3

# Powers of ten between step 0 and the first later one.
_APART = 0.4


def plots(title: str, found: Sequence[Trajectory], labels: Sequence[str], note: str = "") -> Plots:
    """Return plots of trajectories whose curves have these labels, headline measures first; layers are kept apart."""
    ordered = sorted(found, key=lambda trajectory: _place(trajectory.name))
    drawn = [(trajectory.layer, plot(trajectory, labels)) for trajectory in ordered]
    whole = [picture for layer, picture in drawn if layer in WHOLE]
    layers = [picture for layer, picture in drawn if layer not in WHOLE]
    return Plots(title, labels if len(labels) > 1 else (), whole, layers, note)


def _place(name: str) -> int:
    """Return the place of a number by its measure: that of a headline measure, or after all of these."""
    measures = list(HEADLINES)
    measure = name.partition("/")[0]
    return measures.index(measure) if measure in measures else len(measures)


def plot(trajectory: Trajectory, labels: Sequence[str]) -> Plot:
    """Return the plot of one trajectory; the color of a curve is the index of its label in ``labels``."""
    curves = [_thinned(curve) for curve in trajectory.curves if curve.label in labels]
    means = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves] or [np.empty(0)])
    if not len(means):
        return Plot(trajectory.name, f"{trajectory.name}: no finite number", (), (), (), False)
    log = bool(means.min() > 0 and means.max() / means.min() >= LOG_FROM)
    x_axis, y_axis = _StepAxis(np.concatenate([curve.steps for curve in curves])), _ValueAxis(curves, log)
    lines = [_line(curve, labels.index(curve.label), x_axis, y_axis) for curve in curves]
    return Plot(trajectory.name, _words(trajectory.name, curves), lines, x_axis.ticks(), y_axis.ticks(), log)


class _StepAxis:
    def __init__(self, steps: np.ndarray) -> None:
        later = np.log10(steps[steps > 0]) if (steps > 0).any() else np.zeros(1)
        self._first, self._last = float(later.min()), float(later.max())
        self._zero = bool((steps == 0).any())
        self._start = self._first - _APART if self._zero else self._first

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        powers = np.where(steps > 0, np.log10(np.maximum(steps, 1)), self._start)
        extent = self._last - self._start
        part = (powers - self._start) / extent if extent else np.full(len(powers), 0.5)
        return LEFT + part * (RIGHT - LEFT)

    def ticks(self) -> list[Tick]:
        decades = range(math.ceil(self._first), math.floor(self._last) + 1)
        steps = [10**power for power in decades[:: math.ceil(len(decades) / _X_TICKS) or 1]]
        if len(steps) < 2:
            powers = range(math.floor(self._first), math.ceil(self._last) + 1)
            steps = [digit * 10**power for power in powers for digit in (1, 2, 5) if power >= 0]
            steps = [step for step in steps if self._first <= math.log10(step) <= self._last]
            steps = steps or [round(10**self._last)]
        at = self(np.array(steps, float))
        apart = [Tick(float(LEFT), "0")] if self._zero else []
        return [*apart, *(Tick(_rounded(x), _short(step)) for x, step in zip(at, steps) if not apart or x > LEFT + 12)]


class _ValueAxis:
    def __init__(self, curves: Sequence[Curve], log: bool) -> None:
        self._log = log
        spreads = [(curve.mean, np.where(np.isfinite(curve.std), curve.std, 0.0)) for curve in curves]
        edges = np.concatenate([edge for mean, std in spreads for edge in (mean - std, mean, mean + std)])
        edges = edges[np.isfinite(edges)]
        if log:
            # A band may reach to zero, which is not on this axis: it is cut below the means.
            lowest = min(np.nanmin(mean) for mean, _ in spreads)
            edges = np.log10(edges[edges >= lowest / 2])
        self._low, self._high = float(edges.min()), float(edges.max())
        if self._high - self._low <= 1e-9 * max(1.0, abs(self._high)):
            margin = 0.5 if log else abs(self._high) / 2 or 0.5
            self._low, self._high = self._low - margin, self._high + margin

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self._log:
            values = np.log10(np.maximum(values, 10**self._low))
        part = (np.clip(values, self._low, self._high) - self._low) / (self._high - self._low)
        return BOTTOM - part * (BOTTOM - TOP)

    def ticks(self) -> list[Tick]:
        if self._log:
            powers = range(math.ceil(self._low), math.floor(self._high) + 1)
            values = [10.0**power for power in powers[:: math.ceil(len(powers) / _Y_TICKS) or 1]]
        else:
            values = _round_values(self._low, self._high, _Y_TICKS + 1)
        return [Tick(_rounded(y), number(value)) for y, value in zip(self(np.array(values)), values)]


def _round_values(low: float, high: float, most: int) -> list[float]:
    """Return the multiples in [low, high] of the smallest of 1, 2, 2.5 and 5 · 10ᵏ that has at most so many there."""
    power = math.floor(math.log10((high - low) / most))
    steps = (digit * 10.0**exponent for exponent in range(power, power + 3) for digit in (1, 2, 2.5, 5))
    for step in steps:
        first, last = math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    raise AssertionError(f"no ticks between {low} and {high}")


def _thinned(curve: Curve) -> Curve:
    """Return the curve with about `_POINTS` points at most, evenly spread over log(step); the last point is kept."""
    if len(curve.steps) <= _POINTS:
        return curve
    powers = np.log10(np.maximum(curve.steps, 1))
    place = np.floor((powers - powers[0]) / (powers[-1] - powers[0]) * _POINTS)
    kept = np.union1d(np.flatnonzero(np.diff(place, prepend=-1)), len(place) - 1)
    return Curve(curve.label, curve.steps[kept], curve.mean[kept], curve.std[kept])


def _line(curve: Curve, color: int, x_axis: _StepAxis, y_axis: _ValueAxis) -> Line:
    """Return a curve whose parts are polylines; fewer than three measurements stay dots, for they show no trend."""
    paths, bands, dots, bars = [], [], [], []
    finite = np.flatnonzero(np.isfinite(curve.mean))
    for part in np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1):
        x, mean, std = x_axis(curve.steps[part]), curve.mean[part], curve.std[part]
        if len(part) == 1 or len(finite) < _TREND:
            dots += [(_rounded(a), _rounded(b)) for a, b in zip(x, y_axis(mean))]
            bars += _bars(x, y_axis(mean - std), y_axis(mean + std))
            continue
        paths.append(_points(x, y_axis(mean)))
        if np.isfinite(std).all():
            outline = np.concatenate([y_axis(mean + std), y_axis(mean - std)[::-1]])
            bands.append(_points(np.concatenate([x, x[::-1]]), outline))
    return Line(color, paths, bands, dots, bars)


def _bars(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[tuple[float, float, float]]:
    return [(_rounded(a), _rounded(b), _rounded(c)) for a, b, c in zip(x, low, high) if math.isfinite(b - c)]


def _words(name: str, curves: Sequence[Curve]) -> str:
    said = []
    for curve in curves:
        finite = np.flatnonzero(np.isfinite(curve.mean))
        if len(finite):
            ends = [f"{number(curve.mean[i])} at step {curve.steps[i]:,.0f}" for i in (finite[0], finite[-1])]
            said.append(f"{curve.label + ': ' if curve.label else ''}{ends[0]}, {ends[1]}")
    return f"{name} over steps. " + "; ".join(said)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{_rounded(a):g},{_rounded(b):g}" for a, b in zip(x, y))


def _rounded(coordinate: float) -> float:
    return round(float(coordinate), 1)


def _short(step: int) -> str:
    """Return a number of steps in few characters."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if step >= size:
            return f"{step / size:.3g}{letter}"
    return str(step)
