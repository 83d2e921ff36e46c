"""Measured numbers: to every logger, and to ``measures.parquet`` in the run's folder."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from pytorch_lightning import Trainer

from lnsgd.loggers.csv import MOVE_AWAY
from lnsgd.replicas import group_statistics
from lnsgd.run_folder import RunFolder
from lnsgd.untrusted.tables import check_parquet, naming
from lnsgd.writing import Throttle, whole_file

if TYPE_CHECKING:
    import pyarrow as pa

# Rows of the file that are read, and kept together in it, at a time; and the most that wait in memory for the file.
_GROUP = 1 << 16


class Measurement(NamedTuple):
    """One measured number.

    Attributes:
        measure: What was measured, such as ``active_fraction``.
        split: On which data, or empty where none was used.
        layer: For which module or tensor, or empty for the whole network.
        value: The number.
        stderr: Its standard error; NaN where it is exact.
    """

    measure: str
    split: str
    layer: str
    value: float
    stderr: float = float("nan")

    @property
    def name(self) -> str:
        """Name in loggers: ``measure/split/layer``, without the empty ones."""
        return "/".join(part for part in (self.measure, self.split, self.layer) if part)


class MeasurementTable:
    """Rows of ``measures.parquet`` in tidy form: step, epoch, replica, split, measure, layer, value, stderr.

    A row measured again at the same step replaces the old one; when a run goes back to an earlier
    step (it was resumed), later rows are dropped.

    In memory are only the rows of the last step and those that came since the file was last written. The next file is
    made of them and of the other rows of this one, a group of rows at a time.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self._rows: dict[tuple[int, int, Measurement], tuple[int, Measurement]] = {}
        # Rows of the file from this step on do not count: those in memory do.
        self._from = 0
        self._last_step = 0
        self._throttle, self._dirty = Throttle(), False
        if resume and path.exists():
            with naming(path, MOVE_AWAY):
                check_parquet(path)
            self._go_back(sys.maxsize)

    def _go_back(self, step: int) -> None:
        """Drops the rows after a step; those of the last step before may then be replaced."""
        import pyarrow.compute as pc

        self._from = step if step == sys.maxsize else step + 1
        last = max((pc.max(group["step"]).as_py() for group in self._stored() if len(group)), default=0)
        self._rows, self._last_step = {}, last
        for group in self._stored():
            for row in group.filter(pc.equal(group["step"], last)).to_pylist():
                self._put(last, row["epoch"], row["replica"], Measurement(*(row[name] for name in Measurement._fields)))
        self._from = last

    def _put(self, step: int, epoch: int, replica: int, measurement: Measurement) -> None:
        self._rows[step, replica, measurement._replace(value=0.0, stderr=0.0)] = (epoch, measurement)
        self._last_step = max(step, self._last_step)

    def add(self, step: int, epoch: int, found: Mapping[int, Iterable[Measurement]]) -> None:
        """Adds rows of one step, given by replica."""
        if step > self._last_step and len(self._rows) > _GROUP:
            self.write()
        if step < self._from:
            self._go_back(step)
        elif step < self._last_step:
            self._rows = {key: row for key, row in self._rows.items() if key[0] <= step}
            self._last_step = step
        for replica, measurements in found.items():
            for measurement in measurements:
                self._put(step, epoch, replica, measurement)
        self._dirty = True
        if self._throttle.due():
            self.write()

    def write(self) -> None:
        """Replaces the file where there is something new."""
        if not self._dirty:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema()
        rows = [
            {"step": step, "epoch": epoch, "replica": replica, **measurement._asdict()}
            for (step, replica, _), (epoch, measurement) in self._rows.items()
        ]
        new = pa.Table.from_pylist(rows, schema)
        with self._throttle.writing(), whole_file(self.path) as part, pq.ParquetWriter(part, schema) as writer:
            waiting = schema.empty_table()
            for table in chain(self._stored(), [new]):
                waiting = pa.concat_tables([waiting, table])
                if full := len(waiting) - len(waiting) % _GROUP:
                    writer.write_table(waiting.slice(0, full), row_group_size=_GROUP)
                    waiting = waiting.slice(full)
            if len(waiting):
                writer.write_table(waiting)
        self._from, self._dirty = self._last_step, False
        self._rows = {key: row for key, row in self._rows.items() if key[0] == self._last_step}

    def _stored(self) -> "Iterator[pa.Table]":
        """The rows of the file that count, a group at a time."""
        if self._from == 0:
            return
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        schema = _schema()
        with naming(self.path, MOVE_AWAY), pq.ParquetFile(self.path) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, schema.names).select(schema.names).cast(schema)
                yield group.filter(pc.less(group["step"], self._from))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("step", pa.int64()),
            ("epoch", pa.int32()),
            ("replica", pa.int32()),
            ("split", pa.string()),
            ("measure", pa.string()),
            ("layer", pa.string()),
            ("value", pa.float64()),
            ("stderr", pa.float64()),
        ]
    )


# One table a trainer, shared by all its measuring callbacks.
_tables: WeakKeyDictionary[Trainer, MeasurementTable] = WeakKeyDictionary()


def table_of(trainer: Trainer) -> MeasurementTable:
    """The table of a trainer's run, in its log folder. Call it on all processes."""
    if trainer not in _tables:
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        _tables[trainer] = MeasurementTable(RunFolder(folder).measures, resume=trainer.ckpt_path is not None)
    return _tables[trainer]


def scalars(measurements: Iterable[Measurement]) -> dict[str, float]:
    """Measurements as loggers take them: numbers by name, standard errors as ``<name>/stderr``."""
    named: dict[str, float] = {}
    for measurement in measurements:
        named[measurement.name] = measurement.value
        if not math.isnan(measurement.stderr):
            named[f"{measurement.name}/stderr"] = measurement.stderr
    return named


def group_scalars(found: Mapping[int, Iterable[Measurement]], members: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Measurements of replicas as loggers take them: mean and standard deviation over each group."""
    by_name: dict[str, dict[int, float]] = {}
    for replica, measurements in found.items():
        for measurement in measurements:
            by_name.setdefault(measurement.name, {})[replica] = measurement.value
    named: dict[str, float] = {}
    for name, values in by_name.items():
        named |= group_statistics(name, values, members)
    return named


def tabulate(trainer: Trainer, found: Mapping[int, Iterable[Measurement]], epoch: int) -> None:
    """Adds measurements by replica, the same on all processes, to ``measures.parquet`` at ``trainer.global_step``."""
    table = table_of(trainer)
    if trainer.is_global_zero:
        table.add(trainer.global_step, epoch, found)


def write_table(trainer: Trainer) -> None:
    """Writes what has been measured so far to ``measures.parquet``."""
    if trainer.is_global_zero and trainer in _tables:
        _tables[trainer].write()
