"""The loss of another process of a run: which one is lost, and how this one ends then."""

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from lnsgd.console.messages import one_line
from lnsgd.runs.errors import DivergedError, LostProcessError, RunError

# A collective usually fails soon after a process has died, and the loggers are ended in order. If it does not fail, as
# on GPUs, which wait for half an hour, this process is ended after this time.
_GRACE_SECONDS = 30.0

# After a failed collective it takes a few seconds until it is known which process has died.
_SECONDS_TO_FIND_CAUSE = 15.0

# Time after which a process with an error of its own is ended, if it still waits for the others.
_SECONDS_TO_END_AFTER_ERROR = 10.0

_DIVERGED = "lnsgd/diverged"

_COMMUNICATION = ("gloo", "NCCL", "Connection reset by peer", "Connection closed by peer", "Broken pipe")


class LostProcess:
    """The loss of another process, as far as it is known; shared by everything that watches processes.

    Only the first loss counts. Among the remaining processes, the one of the lowest rank reports it.

    Args:
        rank: Rank of this process in the run.
        world: Number of processes of the run.
        remedy: How to resume; the end of the message.

    Attributes:
        in_trouble: Whether a collective has failed, so that a silent process is dead.
        notes: Store in which a process leaves why it ends on purpose, for the first to report; see `note_divergence`.
        before_exit: Called before this process is ended by force, for example to kill the processes that it started.
    """

    def __init__(self, rank: int, world: int, remedy: str) -> None:
        self.rank, self.world = rank, world
        self.in_trouble = False
        self.notes: Store | None = None
        self.before_exit: list[Callable[[], None]] = []
        self._remedy = remedy
        self._error: LostProcessError | None = None
        self._reports = rank == 0
        self._known = threading.Event()
        self._settled = threading.Event()
        self._lock = threading.Lock()

    def declare(self, rank: int | None, fate: str, grace: float = _GRACE_SECONDS) -> None:
        """Declare that a process is lost.

        Args:
            rank: Rank of the lost process, or ``None`` if it is unknown.
            fate: What happened to it, such as ``was killed by SIGKILL``.
            grace: Seconds in which this process may end by itself, before it is ended with exit code 1.
        """
        with self._lock:
            if self._known.is_set() or self._settled.is_set():
                return
            self._error = self._describe(rank, fate)
            self._reports = self.rank == min({*range(self.world)} - {rank}, default=self.rank)
            self._known.set()
        threading.Thread(target=self._exit_after, args=(grace,), daemon=True, name="lost-process").start()

    def _describe(self, rank: int | None, fate: str) -> LostProcessError:
        who = "a process" if rank is None else f"the process of rank {rank}"
        return LostProcessError(
            f"{who} (of {self.world}) {fate}; the others cannot continue without it, so the run has ended. "
            f"{self._remedy}"
        )

    def _exit_after(self, grace: float) -> None:
        if self._settled.wait(grace):
            return
        if self._reports:
            os.write(2, f"lnsgd: error: {self._error}\n".encode())
        for call in self.before_exit:
            call()
        os._exit(1)

    def settle(self) -> None:
        """Leave the end of this process to the caller: no further loss is declared, nothing is ended by force."""
        with self._lock:
            self._settled.set()

    def note_divergence(self, message: str, step: int) -> None:
        """Exit at once with code 1 after a number that is not finite, which the first process reports.

        An exit in order would wait for the other processes, which wait for this one in a collective. Only the first
        process writes files.
        """
        if self.notes is not None:
            with suppress(RuntimeError):  # the first process has ended and cannot report it
                self.notes.set(_DIVERGED, json.dumps([message, step]))
        os._exit(1)

    def exit_unless_ended(self, error: BaseException) -> None:
        """End this process some time after an error that only it has, unless it ends by itself.

        Args:
            error: What was raised; reported here if nothing else has reported it by then.
        """

        def exit_late() -> None:
            if not self._settled.wait(_SECONDS_TO_END_AFTER_ERROR):
                os.write(2, f"lnsgd: error: in the process of rank {self.rank}: {one_line(error)}\n".encode())
                os._exit(1)

        threading.Thread(target=exit_late, daemon=True, name="exit-after-error").start()

    def _noted_divergence(self) -> DivergedError | None:
        with suppress(RuntimeError):
            if self.notes is not None and self.notes.check([_DIVERGED]):
                return DivergedError(*json.loads(self.notes.get(_DIVERGED)))
        return None

    def cause_of(self, error: BaseException) -> RunError | None:
        """Find the loss that caused an error; waits until it is known.

        Args:
            error: What a collective, or anything else in this process, has raised.

        Returns:
            The loss, or ``None`` if the error has another cause.

        Raises:
            SystemExit: Another process reports the loss; exit code 1.
        """
        if not is_communication_error(error):
            self.settle()
            return None
        self.in_trouble = True
        known = self._known.wait(_SECONDS_TO_FIND_CAUSE)
        self.settle()
        if known and not self._reports:
            raise SystemExit(1)
        if self.rank == 0 and (diverged := self._noted_divergence()) is not None:
            return diverged
        return self._error or self._describe(None, f"does not respond any more: {' '.join(str(error).split())[:200]}")


def is_communication_error(error: BaseException) -> bool:
    """Return whether processes could not reach each other, according to gloo, NCCL or their store."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _COMMUNICATION)
