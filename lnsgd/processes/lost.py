"""Which process of a run is lost, and how this one ends then."""

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from lnsgd.messages import one_line
from lnsgd.run_errors import DivergedError, LostProcessError, RunError

# A collective fails by itself soon after a process has died, and then the loggers are ended in order. Where it does
# not, as on GPUs, which wait for half an hour, this process is ended from here.
_GRACE_SECONDS = 30.0

# After a failed collective it takes a few seconds until it is known which process has died.
_VERDICT_SECONDS = 15.0

# After an error of its own, before a process is ended that waits for the others.
_SECONDS_TO_END_AFTER_ERROR = 10.0

_DIVERGED = "lnsgd/diverged"

_COMMUNICATION = ("gloo", "NCCL", "Connection reset by peer", "Connection closed by peer", "Broken pipe")


class LostProcess:
    """What is known of the loss of another process; shared by all that watch.

    The first loss counts. Of those that are left the one of the lowest rank speaks for all.

    Args:
        rank: Of this process, among all of the run.
        world: Number of processes.
        remedy: How to go on, the end of the message.

    Attributes:
        in_trouble: Whether a collective has failed, so that silence means death.
        notes: Where a process leaves why it ends on purpose, for the first one to say; see `note_divergence`.
        before_exit: Called before this process is ended by force, such as to end those that it has started.
    """

    def __init__(self, rank: int, world: int, remedy: str) -> None:
        self.rank, self.world = rank, world
        self.in_trouble = False
        self.notes: Store | None = None
        self.before_exit: list[Callable[[], None]] = []
        self._remedy = remedy
        self._error: LostProcessError | None = None
        self._speaks = rank == 0
        self._known = threading.Event()
        self._settled = threading.Event()
        self._lock = threading.Lock()

    def declare(self, rank: int | None, how: str, grace: float = _GRACE_SECONDS) -> None:
        """Says that a process is lost.

        Args:
            rank: Which, or ``None`` where that cannot be told.
            how: What became of it, such as ``was killed by SIGKILL``.
            grace: Seconds that this process has to end by itself, before it is ended with exit code 1.
        """
        with self._lock:
            if self._known.is_set() or self._settled.is_set():
                return
            self._error = self._describe(rank, how)
            self._speaks = self.rank == min({*range(self.world)} - {rank}, default=self.rank)
            self._known.set()
        threading.Thread(target=self._end_after, args=(grace,), daemon=True, name="lost-process").start()

    def _describe(self, rank: int | None, how: str) -> LostProcessError:
        who = "a process" if rank is None else f"the process of rank {rank}"
        return LostProcessError(
            f"{who} (of {self.world}) {how}; the others cannot go on without it, so the run has ended. {self._remedy}"
        )

    def _end_after(self, grace: float) -> None:
        if self._settled.wait(grace):
            return
        if self._speaks:
            os.write(2, f"lnsgd: error: {self._error}\n".encode())
        for call in self.before_exit:
            call()
        os._exit(1)

    def settle(self) -> None:
        """Leaves the end of this process to the caller: nobody is declared lost any more, nothing ended by force."""
        with self._lock:
            self._settled.set()

    def note_divergence(self, message: str, step: int) -> None:
        """Lets the first process say that this one has found a number that is not finite, and ends this one.

        At once, with exit code 1: in order it would wait for the others, which wait for it in a collective. Only the
        first process writes files.
        """
        if self.notes is not None:
            with suppress(RuntimeError):  # the first process has gone: nobody is left to say it
                self.notes.set(_DIVERGED, json.dumps([message, step]))
        os._exit(1)

    def end_after(self, error: BaseException) -> None:
        """Ends this process where an error that only it has keeps it from ending: the others wait for it.

        Args:
            error: What has been raised; it is said here where nobody else has come to it by then.
        """

        def end() -> None:
            if not self._settled.wait(_SECONDS_TO_END_AFTER_ERROR):
                os.write(2, f"lnsgd: error: in the process of rank {self.rank}: {one_line(error)}\n".encode())
                os._exit(1)

        threading.Thread(target=end, daemon=True, name="end-after-error").start()

    def _noted(self) -> DivergedError | None:
        with suppress(RuntimeError):
            if self.notes is not None and self.notes.check([_DIVERGED]):
                return DivergedError(*json.loads(self.notes.get(_DIVERGED)))
        return None

    def behind(self, error: BaseException) -> RunError | None:
        """The loss that an error follows from; ``None`` where it has another cause. Waits until it is known.

        Args:
            error: What a collective, or anything else in this process, has raised.

        Raises:
            SystemExit: another process says it, with exit code 1.
        """
        if not is_communication_error(error):
            self.settle()
            return None
        self.in_trouble = True
        known = self._known.wait(_VERDICT_SECONDS)
        self.settle()
        if known and not self._speaks:
            raise SystemExit(1)
        if self.rank == 0 and (diverged := self._noted()) is not None:
            return diverged
        return self._error or self._describe(None, f"does not take part any more: {' '.join(str(error).split())[:200]}")


def is_communication_error(error: BaseException) -> bool:
    """Whether processes could not reach each other, as gloo, NCCL and their store say it."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _COMMUNICATION)
