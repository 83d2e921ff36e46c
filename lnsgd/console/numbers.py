"""Format numbers, times and dates for people, on the terminal and on a page."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

# Numbers between these powers of ten are written without an exponent.
_SMALLEST, _LARGEST = -4, 7

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Numbers of a column get the same number of decimals if they differ at most by this factor.
_ALIKE = 1000

# Significant digits of an error.
_ERROR_DIGITS = 2

# A value is not aligned with its error if it would need more digits than this.
_ALIGNED_DIGITS = 9


def is_missing(value: Any) -> bool:
    """Return whether a value is ``None`` or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float, digits: int = 4) -> str:
    """Format a number with the given significant digits; all digits before the point are kept. NaN is ``–``.

    Example:
        >>> number(1234567), number(0.25), number(0.000012345), number(float("nan"))
        ('1,234,567', '0.25', '1.234 × 10⁻⁵', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if isinstance(value, int) or _SMALLEST <= power < _LARGEST:
        text = f"{value:,.{max(0, digits - 1 - power)}f}"
        return _minus(text.rstrip("0").rstrip(".") if "." in text else text)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return _minus(mantissa.rstrip("0").rstrip(".")) + _power(int(exponent))


def numbers(values: Sequence[float]) -> list[str]:
    """Format the numbers of a column, with the same number of decimals if their sizes are similar.

    Example:
        >>> numbers([0.4104, 0.417, 0.05]), numbers([35.0, 7.0]), numbers([1e-9, 2.0])
        (['0.4104', '0.4170', '0.0500'], ['35', '7'], ['1 × 10⁻⁹', '2'])
    """
    texts = [number(value) for value in values]
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes or max(sizes) > _ALIKE * min(sizes) or any("×" in text for text in texts):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [_minus(f"{value:,.{decimals}f}") if math.isfinite(value) else text for value, text in zip(values, texts)]


def plus_minus(value: float, error: float | None) -> str:
    """Format a number with its error, both to the error's second digit; without one if the error is unknown.

    Example:
        >>> plus_minus(31.0916, 0.3518), plus_minus(0.000012345, 2e-7), plus_minus(73.0, None)
        ('31.09 ± 0.35', '(1.234 ± 0.020) × 10⁻⁵', '73')
    """
    if error is None or math.isnan(error) or math.isnan(value):
        return number(value)
    if error <= 0 or math.isinf(error) or math.isinf(value):
        return f"{number(value)} ± {number(error, _ERROR_DIGITS)}"
    larger = max(abs(value), error)
    power = math.floor(math.log10(larger))
    shift = 0 if _SMALLEST <= power < _LARGEST else power
    decimals = _ERROR_DIGITS - 1 - math.floor(math.log10(error)) + shift
    if decimals + power - shift > _ALIGNED_DIGITS:
        return f"{number(value)} ± {number(error, _ERROR_DIGITS)}"
    digits = max(0, decimals)
    text = _minus(f"{value / 10**shift:,.{digits}f} ± {error / 10**shift:,.{digits}f}")
    return f"({text}){_power(shift)}" if shift else text


def between(low: float | None, high: float | None) -> str:
    """Format bounds, of which either may be missing.

    Example:
        >>> between(20.0, 30.0), between(1.0, None), between(None, -0.01)
        ('20 … 30', '≥ 1', '≤ −0.01')
    """
    if low is None:
        return "any" if high is None else f"≤ {number(high)}"
    return f"≥ {number(low)}" if high is None else f"{number(low)} … {number(high)}"


def duration(seconds: float) -> str:
    """Format a duration in suitable units.

    Example:
        >>> duration(4.5), duration(695), duration(12345)
        ('4.5 s', '695 s (11 min 35 s)', '12,345 s (3 h 25 min)')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{number(seconds)} s"
    units = f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds:,.0f} s ({units})"


def moment(when: datetime) -> str:
    """Format a date and time in the time zone of this machine.

    Example:
        >>> moment(datetime(2026, 3, 1, 12, 30)).startswith("2026-03-01 12:30")
        True
    """
    return when.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _power(exponent: int) -> str:
    return " × 10" + str(exponent).translate(_RAISED)
