"""``measures.parquet``: every number that was measured in a run, a row each."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from lnsgd.runs.writing import Throttle, whole_file
from lnsgd.untrusted.tables import REMEDY, check_parquet, naming, read_parquet

if TYPE_CHECKING:  # they take seconds to import, which reading does without
    import pandas as pd
    import pyarrow as pa

    from lnsgd.measuring import Measurement

# The columns of the file in their order, and their types in Arrow and pandas.
STEP, EPOCH, REPLICA, SPLIT, MEASURE, LAYER, VALUE, STDERR, WEIGHTS = (
    *("step", "epoch", "replica", "split"),
    *("measure", "layer", "value", "stderr", "which_weights"),
)
COLUMNS = {
    STEP: "int64",
    EPOCH: "int32",
    REPLICA: "int32",
    SPLIT: "string",
    MEASURE: "string",
    LAYER: "string",
    VALUE: "float64",
    STDERR: "float64",
    WEIGHTS: "string",
}

# Layers of numbers of a whole network: of all weights, or of all activation sites (`lnsgd.measures.TOTAL`).
WHOLE = ("", "total")
# The content of WEIGHTS for the weights that the optimizer trains. A file without the column is of these alone.
TRAINED = "trained"

# The splits of the data on which numbers are measured.
SPLITS = ("train", "val", "test")

# The measures that say what label noise does to a network, and their names where there is little room, such as in the
# progress bar; in the order in which they are shown, before all others.
HEADLINES = {
    "active_fraction": "active",
    "associated_count": "associated",
    "distance_from_init": "distance",
    "hessian_trace": "trace",
}

# What tells the numbers of one network apart, and those of a run: rows that agree here are one number at several steps.
QUANTITY = (MEASURE, SPLIT, LAYER)
NUMBER = (REPLICA, *QUANTITY, WEIGHTS)

# How to continue a run whose table cannot be read. The table is never replaced unasked: it may be all there is.
MOVE_AWAY = "move it away, and the run continues without its rows; or start over in another folder"

# Rows of the file that are read, and kept together in it, at a time; and the most that wait in memory for the file.
_GROUP = 1 << 16


def read_measures(path: Path) -> "pd.DataFrame":
    """Read ``measures.parquet`` of a run.

    Args:
        path: The file.

    Raises:
        ValueError: the file is missing or damaged, or does not have all of the columns.
    """
    table = read_parquet(path)
    if missing := [name for name in COLUMNS if name not in table and name != WEIGHTS]:
        raise ValueError(f"{path} has no column {missing[0]!r}; {REMEDY}")
    return with_weights(table)


def with_weights(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with the column ``which_weights``; one that an earlier version wrote is of trained weights.

    Args:
        table: Measurements in rows.
    """
    if WEIGHTS not in table:
        table = table.assign(**{WEIGHTS: TRAINED})
        return table.astype({WEIGHTS: table[MEASURE].dtype})
    return table.assign(**{WEIGHTS: table[WEIGHTS].fillna(TRAINED)}) if table[WEIGHTS].isna().any() else table


def with_weights_in_names(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table in which measures of other weights than the trained ones are named so, ``averaged/error``.

    Measure, split and layer alone then tell the numbers of a network apart.

    Args:
        table: Measurements in rows.
    """
    table = with_weights(table)
    named = table[WEIGHTS].astype("string") + "/" + table[MEASURE].astype("string")
    measures = table[MEASURE].where(table[WEIGHTS] == TRAINED, named)
    return table.assign(**{MEASURE: measures}).drop(columns=WEIGHTS)


def is_tidy(table: "pd.DataFrame") -> bool:
    """Whether a table has the columns of ``measures.parquet``; one that a figure computed has its own.

    Args:
        table: What stands in a file of that name.
    """
    return set(COLUMNS) - {WEIGHTS} <= set(table)


def no_measures() -> "pd.DataFrame":
    """Return the table of a run in which nothing was measured."""
    table: pd.DataFrame = _schema().empty_table().to_pandas()
    return table


def as_table(rows: "Iterable[tuple[int, int, Measurement]]") -> "pd.DataFrame":
    """Return measurements of one network as a table with the columns of ``measures.parquet``.

    Args:
        rows: Step, epoch and measurement of each row.
    """
    table: pd.DataFrame = _arrow((step, epoch, 0, found) for step, epoch, found in rows).to_pandas()
    return table


def write_measures(table: "pd.DataFrame", path: Path) -> None:
    """Write ``measures.parquet`` as a whole.

    Args:
        table: The rows, such as those of several runs.
        path: The file; written whole or not at all.
    """
    with whole_file(path) as part:
        with_weights(table)[list(COLUMNS)].astype({"epoch": "int32", "replica": "int32"}).to_parquet(part, index=False)


def final(measures: "pd.DataFrame") -> "pd.DataFrame":
    """Return the last row of every number that was measured: its last value, with its step and standard error.

    This is the only definition of a final measure. A number that is not measured at the last step of a run counts
    with the last step at which it was; whether a replica that diverged counts is left to the caller.

    Args:
        measures: Rows of ``measures.parquet``.

    Returns:
        Some of these rows, by replica, in the order of the file.
    """
    last = with_weights(measures).sort_values("step", kind="stable").drop_duplicates(list(NUMBER), keep="last")
    return last.sort_index().sort_values("replica", kind="stable")


def initial(measures: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows before the first step, with which final measures are compared.

    This is the only definition of an initial measure. A number that was first measured later, such as one of a network
    whose weights its first batch makes, has none.

    Args:
        measures: Rows of ``measures.parquet``.

    Returns:
        Some of these rows, by replica, in the order of the file.
    """
    table = with_weights(measures)
    return table[table[STEP] == 0].sort_values("replica", kind="stable")


def headlines_first(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return rows with those of the headline measures of whole networks first, in the order of ``HEADLINES``.

    Args:
        rows: Rows with the columns measure and layer.
    """
    places = {measure: place for place, measure in enumerate(HEADLINES)}
    place = rows[MEASURE].map(places).where(rows[LAYER].isin(WHOLE)).fillna(len(places))
    return rows.iloc[place.argsort(kind="stable")]


def headlines(measures: "pd.DataFrame", most_layers: int) -> "pd.DataFrame":
    """Return the rows that are shown where there is little room: those of whole networks and, by measure, of layers.

    Layers are left out where they are tensors of which there is a number of all, where there is one layer alone
    beside the number of the whole network, and where there are too many.

    Args:
        measures: Rows with the columns measure and layer.
        most_layers: The most layers that are shown.
    """
    by_measure = measures[MEASURE]
    whole = measures[LAYER].isin(WHOLE)
    layers = measures[LAYER].where(~whole).groupby(by_measure).transform("nunique")
    are_tensors = (measures[LAYER] == "").groupby(by_measure).transform("any")
    is_alone = whole.groupby(by_measure).transform("any") & (layers <= 1)
    return measures[whole | (~are_tensors & ~is_alone & (layers <= most_layers))]


def final_table(measures: "pd.DataFrame") -> "pd.DataFrame":
    """Return the final measures of a run, see `final`, as trackers show them.

    Args:
        measures: Rows of ``measures.parquet``.

    Returns:
        Columns replica (where there is more than one), measure, split, layer, which_weights (where some are not the
        trained ones), step, value, stderr; rows by replica, in the order in which they were measured.
    """
    table = final(measures)[[*NUMBER, "step", "value", "stderr"]]
    same = [] if table["replica"].any() else ["replica"]
    return table.drop(columns=same if (table[WEIGHTS] != TRAINED).any() else [*same, WEIGHTS])


class MeasurementTable:
    """Writer of ``measures.parquet`` for a run that is being trained.

    A row measured again at the same step replaces the old one; when a run goes back to an earlier step (it was
    resumed), later rows are dropped.

    Only the rows of the last step, and those that came since the file was last written, are in memory. The next file is
    made of them and of the other rows of this one, a group of rows at a time.

    Args:
        path: The file.
        resume: Keep the rows of a file that is there.
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

    def add(self, step: int, epoch: int, found: "Mapping[int, Iterable[Measurement]]") -> None:
        """Add the measurements of one step, given by replica."""
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
        """Replace the file if there is anything new."""
        if not self._dirty:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema()
        new = _arrow((step, epoch, replica, found) for (step, replica, _), (epoch, found) in self._rows.items())
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

    def _go_back(self, step: int) -> None:
        """Drop the rows after a step; those of the last step before may then be replaced."""
        import pyarrow.compute as pc

        from lnsgd.measuring import Measurement

        self._from = step if step == sys.maxsize else step + 1
        last = max((pc.max(group["step"]).as_py() for group in self._stored() if len(group)), default=0)
        self._rows, self._last_step = {}, last
        for group in self._stored():
            for row in group.filter(pc.equal(group["step"], last)).to_pylist():
                self._put(last, row["epoch"], row["replica"], Measurement(*(row[name] for name in Measurement._fields)))
        self._from = last

    def _put(self, step: int, epoch: int, replica: int, measurement: "Measurement") -> None:
        self._rows[step, replica, measurement._replace(value=0.0, stderr=0.0)] = (epoch, measurement)
        self._last_step = max(step, self._last_step)

    def _stored(self) -> "Iterator[pa.Table]":
        """Yield the rows of the file that count, a group at a time."""
        if self._from == 0:
            return
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        schema = _schema()
        with naming(self.path, MOVE_AWAY), pq.ParquetFile(self.path) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                if WEIGHTS not in group.column_names:  # an earlier version wrote the file
                    group = group.append_column(WEIGHTS, pa.array([TRAINED] * len(group), pa.string()))
                group = group.select(schema.names).cast(schema)
                yield group.filter(pc.less(group["step"], self._from))


def _arrow(rows: "Iterable[tuple[int, int, int, Measurement]]") -> "pa.Table":
    """Return rows, given by step, epoch, replica and measurement."""
    import pyarrow as pa

    named = [
        {STEP: step, EPOCH: epoch, REPLICA: replica, **measurement._asdict()}
        for step, epoch, replica, measurement in rows
    ]
    return pa.Table.from_pylist(named, _schema())


def _schema() -> "pa.Schema":
    import pyarrow as pa

    types = {"int64": pa.int64(), "int32": pa.int32(), "string": pa.string(), "float64": pa.float64()}
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
