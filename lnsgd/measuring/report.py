"""Messages of a long measurement to the context in which it is taken."""

from lnsgd.measures import Report
from lnsgd.measuring.context import Context


class ContextReport(Report):
    """Announces in a context, once, how a measure is computed, and shows its progress there.

    Args:
        name: Name of the measure.
        context: The context.
        part: The part of the measurement that this computation is, as fractions at its beginning and end.
    """

    def __init__(self, name: str, context: Context, part: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(name)
        self._context = context
        self._part = part

    def announce(self, what: str, message: str, seconds: float) -> None:
        """Log a message in the context, unless the same was announced there with another duration."""
        if what not in self._context.announced:
            self._context.announced.add(what)
            self._context.log_message(message)

    def show(self, fraction: float) -> None:
        """Tell the context which fraction of the measurement is done."""
        if self._context.on_progress is not None:
            begin, end = self._part
            self._context.on_progress(begin + fraction * (end - begin))
