"""The time that measuring takes: its limit, and messages about a measurement that takes long."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from pytorch_lightning.utilities import rank_zero_info

from lnsgd.console.numbers import duration
from lnsgd.measuring import Context

# Seconds after which a measurement is announced; again after twice as long, and so on.
ANNOUNCED_AFTER = 10.0

# A measurement that took longer than this is announced if it takes long again; a thread is not worth it for others.
_LONG = 1.0


class Overhead:
    """Time spent on measuring against time spent on training.

    Args:
        name: Name of the callback that measures, for messages.
        limit: Largest fraction of the training time; ``None`` for no limit.
        suggested: A limit to suggest if measuring takes longer than training and there is no limit; ``None`` to suggest
            none.

    Raises:
        ValueError: a limit that is not positive.
    """

    def __init__(self, name: str, limit: float | None, suggested: float | None = None) -> None:
        if limit is not None and not limit > 0:
            raise ValueError(
                f"{name}: max_overhead = {limit}; give a fraction of the training time > 0, or null for no limit"
            )
        self.name = name
        self.limit = limit
        self._suggested = suggested
        self._is_reported = False
        self._longest: float | None = None
        self.start()

    def start(self) -> None:
        """Set both clocks and the number of skipped measurements to zero: training starts or is resumed."""
        self._started, self._measured = perf_counter(), 0.0
        self._due = self._skipped = 0

    @contextmanager
    def measuring(self, step: int = 0, context: Context | None = None) -> Iterator[None]:
        """Count the time spent within as measuring, and log messages if it is long.

        Args:
            step: Step at which the network is measured, for the messages.
            context: Where the network is measured, for the progress in the messages.
        """
        begun = perf_counter()
        try:
            if self._longest is None or self._longest > _LONG:
                with announced(self.name, step, context):
                    yield
            else:
                yield
        finally:
            taken = perf_counter() - begun
            self._longest = max(self._longest or 0.0, taken)
            self._measured += taken

    def is_affordable(self) -> bool:
        """Return whether the limit is kept so far, which is asked when a measurement is due.

        Logs a message the first time that it is not, and if measuring without a limit takes longer than training.
        """
        self._due += 1
        training = self._training
        if self.limit is None:
            if self._suggested is not None and self._measured > max(training, ANNOUNCED_AFTER):
                self._report(
                    f"{self.name} has taken {self._measured:.2g} s of {training:.2g} s of training, and its schedule "
                    f"is kept; give max_overhead, such as {self._suggested:g}, to skip measurements"
                )
            return True
        if self.is_kept:
            return True
        self._skipped += 1
        self._report(
            f"{self.name} has taken {self._measured:.2g} s of {training:.2g} s of training, more than "
            f"max_overhead = {self.limit:g} allows: measurements that are due are skipped until it is kept again; give "
            "max_overhead: null to take them all"
        )
        return False

    def allows(self, seconds: float) -> bool:
        """Return whether the limit is kept after a measurement that takes so long.

        Args:
            seconds: How long it takes, as far as that is known.
        """
        return self.limit is None or self._measured + seconds <= self.limit * self._training

    def report_left_out(self, seconds: float) -> None:
        """Log that a measurement is not taken, because the limit does not allow it."""
        rank_zero_info(
            f"{self.name} is left out: it would take about {duration(seconds)} after {duration(self._training)} of "
            f"training, more than max_overhead = {self.limit:g} allows; give max_overhead: null to take it"
        )

    @property
    def is_kept(self) -> bool:
        """Whether the limit is kept so far."""
        return self.limit is None or self._measured <= self.limit * self._training

    @property
    def _training(self) -> float:
        return perf_counter() - self._started - self._measured

    def report_skipped(self) -> None:
        """Log how many measurements were skipped, if any were; training has ended."""
        if self._skipped:
            rank_zero_info(
                f"{self.name}: {self._skipped} of {self._due} measurements that were due were skipped to keep "
                f"max_overhead = {self.limit:g}"
            )

    def _report(self, message: str) -> None:
        if not self._is_reported:
            self._is_reported = True
            rank_zero_info(message)


@contextmanager
def announced(name: str, step: int, context: Context | None = None) -> Iterator[None]:
    """Log for how long a measurement has run, after 10 s, 20 s, 40 s and so on, from a thread of its own.

    Args:
        name: Name of the callback that measures.
        step: Step at which the network is measured.
        context: Where the network is measured. The messages say which fraction is done, where the measure tells it, or
            else how many batches of data were read, which shows the speed.
    """
    done, begun = Event(), perf_counter()
    fractions: list[float] = []
    before = 0
    if context is not None:
        context.on_progress, before = fractions.append, context.loaded.batches_read

    def progress() -> str:
        if fractions:
            return f", {fractions[-1]:.0%} done"
        read = 0 if context is None else context.loaded.batches_read - before
        return f", with {read:,} batches of data" if read else ""

    def announce() -> None:
        wait = ANNOUNCED_AFTER
        while not done.wait(wait):
            wait = perf_counter() - begun
            rank_zero_info(f"{name}: measuring the network at step {step} has taken {duration(wait)}{progress()}")

    thread = Thread(target=announce, name="lnsgd-announcements", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if context is not None:
            context.on_progress = None
