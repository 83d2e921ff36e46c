"""A progress bar that shows the measures of label noise before all other numbers."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from lnsgd.lightning import TQDMProgressBar
from lnsgd.records.measures import HEADLINES

# Columns of the bar itself, with its frame, that no other number than the first ones may take; below _NARROWEST there
# is none.
_BAR, _NARROWEST = 12, 4

_BEGIN, _FRAMED, _END = "{desc}{percentage:3.0f}%", "|{bar}|", " <{remaining}{postfix}"


class MeasureProgressBar(TQDMProgressBar):
    """Lightning's bar with ``active``, ``associated``, ``distance`` and ``trace`` first, then steps, time and losses.

    A number that does not fit into the width of the terminal is left out as a whole, the last ones first.

    Args:
        refresh_rate: Draw after this many batches; 0 for no bar.
        process_position: Number of lines left above it for other bars.
        leave: Leave the bars of finished epochs on the screen.
    """

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar of training."""
        return FittedBar(
            desc=self.train_description,
            position=2 * self.process_position,
            disable=self.is_disabled,
            leave=True,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
        )


class FittedBar(Tqdm):
    """A bar followed by as many whole numbers as fit into the width of the terminal.

    Args:
        args: Arguments of ``tqdm``.
        kwargs: Arguments of ``tqdm``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._first: list[str] = []
        self._others: list[str] = []
        super().__init__(*args, **kwargs)

    def set_postfix(self, ordered_dict: Mapping[str, Any] | None = None, refresh: bool = True, **numbers: Any) -> None:
        """Show numbers from now on.

        Args:
            ordered_dict: Numbers by name.
            refresh: Draw the bar.
            numbers: Further numbers.
        """
        shown = {name: f"{name}={_short(value)}" for name, value in {**(ordered_dict or {}), **numbers}.items()}
        self._first = [shown.pop(name) for name in HEADLINES.values() if name in shown]
        self._others = list(shown.values())
        if refresh:
            self.refresh()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What ``tqdm`` draws: the numbers that fit, and the bar if there is room for it."""
        fields: dict[str, Any] = super().format_dict
        plain = {**fields, "ncols": None, "postfix": None}
        counts = self.format_meter(**{**plain, "bar_format": "{n_fmt}/{total_fmt} in {elapsed}|{rate_noinv_fmt}"})
        room = sys.maxsize
        if fields["ncols"]:
            room = fields["ncols"] - len(self.format_meter(**{**plain, "bar_format": _BEGIN + _END}))
        first = fitting(self._first, room)
        room -= _width(first)
        others = fitting([*counts.split("|"), *self._others], room - _BAR) if len(first) == len(self._first) else []
        bar = _FRAMED if room - _width(others) >= _NARROWEST else ""
        postfix = " ".join([*first, *others])
        return {**fields, "bar_format": _BEGIN + bar + _END.replace("{postfix}", f" {postfix}")}


def fitting(entries: Sequence[str], room: int) -> list[str]:
    """Return the first entries that fit into a number of columns, each with the space before it.

    Args:
        entries: Texts in the order in which they are wanted.
        room: The number of columns.

    Example:
        >>> fitting(["active=0.4", "loss=2"], 12), fitting(["active=0.4", "loss=2"], 18)
        (['active=0.4'], ['active=0.4', 'loss=2'])
    """
    number = next((n for n in range(len(entries)) if _width(entries[: n + 1]) > room), len(entries))
    return list(entries[:number])


def _width(entries: Sequence[str]) -> int:
    return sum(len(entry) + 1 for entry in entries)


def _short(value: Any) -> str:
    """Format a number with three digits, or with all digits before the point up to a million."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")
