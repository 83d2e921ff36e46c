"""The measurements of a `lnsgd.Watch`: in memory, and in the folder that it was given."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import finalize

import torch.distributed as dist
from torch import Tensor

from lnsgd.measuring import Measurement
from lnsgd.records.measures import MeasurementTable, as_table, read_measures
from lnsgd.runs.claims import Claim, claim, claim_new
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.checkpoint import load_safetensors, save_safetensors

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class WatchRecord:
    """The measurements of a watch. The first process writes them; all processes have the same ones.

    Args:
        out: Folder for ``measures.parquet``; ``None`` to keep the measurements in memory alone.
        resume: Continue the table in ``out``, if there is one. If not, the table of another run is left alone, and a
            fresh folder is made beside it.

    Attributes:
        folder: The folder that is written to, or ``None``.
        is_resumed: Whether there was a table to continue.

    Raises:
        ValueError: another process writes into the folder that is to be continued; its table is damaged.
        OSError: the folder cannot be written to.
    """

    def __init__(self, out: Path | None, resume: bool) -> None:
        self._rows: list[tuple[int, int, Measurement]] = []
        self._claim: Claim | None = None
        self._table: MeasurementTable | None = None
        self.folder = folder = None if out is None else _from_first(lambda: self._claimed(out, resume))
        self.is_resumed = folder is not None and _from_first(lambda: RunFolder(folder).measures.exists())
        if self.is_resumed:
            self._read()
        if self._claim is not None:
            self._table = MeasurementTable(RunFolder(self._claim.folder).measures, resume)
        # Also without `close`: when the watch is forgotten, or the program ends.
        self._finish = finalize(self, _finish, self._table, self._claim)

    def add(self, step: int, epoch: int, found: Sequence[Measurement]) -> None:
        """Add the measurements of a step; rows of this and of later steps are replaced.

        Args:
            step: Number of steps taken.
            epoch: Number of the epoch.
            found: The measurements.
        """
        if self._rows and self._rows[-1][0] >= step:
            self._rows = [row for row in self._rows if row[0] < step]
        self._rows += [(step, epoch, measurement) for measurement in found]
        if self._table is not None:
            is_first = not self._table.path.exists()
            self._table.add(step, epoch, {0: found})
            if is_first:  # so that everybody sees that the folder has the table of a run
                self._table.write()

    def table(self) -> "pd.DataFrame":
        """Return all measurements with the columns of ``measures.parquet``."""
        return as_table(self._rows)

    def write_init(self, weights: Mapping[str, Tensor]) -> None:
        """Keep initial weights in the folder, if there is one.

        Args:
            weights: θ₀ by name.
        """
        if self._claim is not None:
            with whole_file(RunFolder(self._claim.folder).init) as part:
                save_safetensors({name: value.contiguous() for name, value in weights.items()}, part)

    def read_init(self) -> Mapping[str, Tensor]:
        """Return the initial weights that the continued run has kept.

        Raises:
            ValueError: it has kept none.
        """
        assert self.folder is not None
        path = RunFolder(self.folder).init
        if not path.exists():
            raise ValueError(f"{self.folder} has a table but no {path.name} with the initial weights θ₀; give init=")
        return load_safetensors(path)

    def finish(self) -> None:
        """Write the table, and let others write into the folder."""
        self._finish()

    def _claimed(self, out: Path, resume: bool) -> Path:
        """Claim the folder, or a fresh one beside it; only the first process calls this."""
        if resume:
            self._claim = claim(out)
            return self._claim.folder
        why = f"another process writes into {out}"
        try:
            claimed = claim(out, seconds=0)
        except ValueError:
            pass
        else:
            if not RunFolder(out).measures.exists():
                self._claim = claimed
                return claimed.folder
            claimed.release()
            why = f"{out} has the table of another run"
        self._claim = claim_new(out.parent, out.name)
        logging.getLogger("lnsgd").warning("lnsgd.Watch writes into %s, because %s", self._claim.folder, why)
        return self._claim.folder

    def _read(self) -> None:
        assert self.folder is not None
        table = read_measures(RunFolder(self.folder).measures)
        table = table[table["replica"] == 0].sort_values("step", kind="stable")
        for step, epoch, *found in zip(*(table[name] for name in ("step", "epoch", *Measurement._fields))):
            self._rows.append((int(step), int(epoch), Measurement(*found)))


def _finish(table: MeasurementTable | None, claimed: Claim | None) -> None:
    if table is not None:
        table.write()
    if claimed is not None:
        claimed.release()


def _from_first(compute: Callable[[], T]) -> T:
    """Return what the first process computes, on all processes; an error there is raised on all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return compute()
    answer: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            answer = [compute()]
        except (OSError, ValueError) as error:
            answer = [error]
    dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]
