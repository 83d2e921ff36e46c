"""A sign of life that the processes of a run give each other."""

import os
import threading
from datetime import timedelta

from torch.distributed.distributed_c10d import Store, _get_default_store

from lnsgd.processes.lost import LostProcess

_SECONDS_BETWEEN_BEATS = 1.0
_SECONDS_BETWEEN_LOOKS = 0.5

# Where a collective has failed, silence for so long says which process has died.
_SOON = 5.0

_DONE = b"done"


class Beats:
    """Writes a number that grows to the store of the process group, and looks at those of the others.

    A process is lost whose number stays the same for too long: it was killed or stopped, or its machine is gone. Two
    threads do it, neither of which needs the main one: a process that computes for hours, or waits in a collective,
    gives signs of life. So one that hangs in its own code is found only when a collective times out.

    Time counts only while this process runs: a job that was suspended as a whole, and is woken, has lost nobody.

    Args:
        store: That of the process group, see ``store_of_group``.
        lost: Who is told, and which process this is.
        patience: Seconds without a sign of life.
    """

    def __init__(self, store: Store, lost: LostProcess, patience: float) -> None:
        self._store, self._lost, self._patience = store, lost, patience
        self._others = [rank for rank in range(lost.world) if rank != lost.rank]
        self._seen: dict[int, bytes] = {}
        self._answers = 0
        self._store_gone = False
        self._stopped = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="beat")
        self._looking = threading.Thread(target=self._look, daemon=True, name="look")

    def start(self) -> None:
        """From now on."""
        self._beating.start()
        self._looking.start()

    def stop(self) -> None:
        """Says to the others that this process is done, which is no loss."""
        self._stopped.set()
        self._beating.join(2 * _SECONDS_BETWEEN_BEATS)

    def _beat(self) -> None:
        try:
            while not self._stopped.wait(_SECONDS_BETWEEN_BEATS):
                self._store.set(_key(self._lost.rank), str(self._answers))
                for rank in self._others:
                    if self._store.check([_key(rank)]):  # to get what is not there would wait for it
                        self._seen[rank] = self._store.get(_key(rank))
                self._answers += 1
            self._store.set(_key(self._lost.rank), _DONE.decode())
        except RuntimeError:  # of which all errors of a store are
            self._store_gone = True

    def _look(self) -> None:
        keeper = _keeper_of_store()
        silent = dict.fromkeys((*self._others, None), 0.0)  # None: the store itself
        before: dict[int | None, bytes | int | None] = {}
        while not self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
            now: dict[int | None, bytes | int | None] = {rank: self._seen.get(rank) for rank in self._others}
            now[None] = self._answers
            for who, sign in now.items():
                alive = sign != before.get(who) or sign == _DONE
                silent[who] = 0.0 if alive else silent[who] + _SECONDS_BETWEEN_LOOKS
            before = now
            if self._store_gone:
                if now.get(keeper) != _DONE:
                    self._lost.declare(keeper, "is gone")
                return
            patience = min(_SOON, self._patience) if self._lost.in_trouble else self._patience
            longest = (silent[None] and (keeper, silent[None])) or max(silent.items(), key=lambda item: item[1])
            if longest[1] >= patience:
                self._declare(*longest)
                return

    def _declare(self, rank: int | None, seconds: float) -> None:
        if self._lost.in_trouble:
            self._lost.declare(rank, "is gone")
        else:  # a collective that waits for it does not fail by itself
            self._lost.declare(rank, f"has given no sign of life for {seconds:g} s (it hangs, or was stopped)", grace=0)


def _key(rank: int) -> str:
    return f"lnsgd/beat/{rank}"


def _keeper_of_store() -> int | None:
    """Rank of the process in which the store lives; ``None`` where it is the agent of torchrun."""
    return None if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else 0


def store_of_group(patience: float) -> Store:
    """A connection of its own to the store of the process group, which a collective in the main thread does not block.

    Args:
        patience: Seconds after which a request that is not answered fails.
    """
    store = _get_default_store().clone()
    store.set_timeout(timedelta(seconds=patience))
    return store
