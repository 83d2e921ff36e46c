"""Heartbeats that the processes of a run exchange, to find out which of them are alive."""

import os
import threading
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from lnsgd import compat
from lnsgd.runs.processes.lost import LostProcess

_SECONDS_BETWEEN_BEATS = 1.0
_SECONDS_BETWEEN_CHECKS = 0.5

# After a collective has failed, a process that is silent for this long is the one that has died.
_SECONDS_AFTER_FAILURE = 5.0

_DONE = b"done"


class Heartbeat:
    """A counter in the store of the process group, and a watch over the counters of the other processes.

    A process whose counter stays the same for too long is lost: it was killed or stopped, or its machine has failed.
    Two threads do this beside the main thread, so that a process that computes for hours, or waits in a collective,
    still counts. Therefore a process that hangs in its own code is only found when a collective times out.

    Time is counted only while this process runs: after a whole job was suspended and continued, no process is lost.

    Args:
        store: A connection to the store of the process group, see ``store_of_group``.
        lost: Records the loss; knows the rank of this process.
        patience: Seconds without a heartbeat after which a process is lost.
    """

    def __init__(self, store: Store, lost: LostProcess, patience: float) -> None:
        self._store, self._lost, self._patience = store, lost, patience
        self._others = [rank for rank in range(lost.world) if rank != lost.rank]
        self._seen: dict[int, bytes] = {}
        self._answers = 0
        self._store_gone = False
        self._stopped = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True, name="heartbeat-sender")
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="heartbeat-watcher")

    def start(self) -> None:
        """Start both threads."""
        self._sender.start()
        self._watcher.start()

    def stop(self) -> None:
        """Announce a normal exit, so that the other processes do not report this one as lost."""
        self._stopped.set()
        self._sender.join(2 * _SECONDS_BETWEEN_BEATS)

    def _send(self) -> None:
        try:
            while not self._stopped.wait(_SECONDS_BETWEEN_BEATS):
                self._store.set(_key(self._lost.rank), str(self._answers))
                for rank in self._others:
                    if self._store.check([_key(rank)]):  # getting a missing key would wait for it
                        self._seen[rank] = self._store.get(_key(rank))
                self._answers += 1
            self._store.set(_key(self._lost.rank), _DONE.decode())
        except RuntimeError:  # the class of all errors of a store
            self._store_gone = True

    def _watch(self) -> None:
        keeper = _store_keeper()
        silent = dict.fromkeys((*self._others, None), 0.0)  # None: the store itself
        before: dict[int | None, bytes | int | None] = {}
        while not self._stopped.wait(_SECONDS_BETWEEN_CHECKS):
            now: dict[int | None, bytes | int | None] = {rank: self._seen.get(rank) for rank in self._others}
            now[None] = self._answers
            for who, counter in now.items():
                alive = counter != before.get(who) or counter == _DONE
                silent[who] = 0.0 if alive else silent[who] + _SECONDS_BETWEEN_CHECKS
            before = now
            if self._store_gone:
                if now.get(keeper) != _DONE:
                    self._lost.declare(keeper, "is gone")
                return
            patience = min(_SECONDS_AFTER_FAILURE, self._patience) if self._lost.in_trouble else self._patience
            longest = (silent[None] and (keeper, silent[None])) or max(silent.items(), key=lambda item: item[1])
            if longest[1] >= patience:
                self._declare_lost(*longest)
                return

    def _declare_lost(self, rank: int | None, seconds: float) -> None:
        if self._lost.in_trouble:
            self._lost.declare(rank, "is gone")
        else:  # a collective that waits for it does not fail by itself
            self._lost.declare(rank, f"has given no sign of life for {seconds:g} s (it hangs, or was stopped)", grace=0)


def _key(rank: int) -> str:
    return f"lnsgd/beat/{rank}"


def _store_keeper() -> int | None:
    """Return the rank of the process that holds the store; ``None`` if the agent of torchrun holds it."""
    return None if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 0


def store_of_group(patience: float) -> Store:
    """Open a separate connection to the store of the process group, which collectives in the main thread do not block.

    Args:
        patience: Seconds after which a request without an answer fails.
    """
    store = compat.process_group_store().clone()
    store.set_timeout(timedelta(seconds=patience))
    return store
