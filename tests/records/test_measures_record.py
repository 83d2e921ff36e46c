"""``measures.parquet``: the rows, whatever is in memory of them."""

import random
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from lnsgd.measuring import Measurement, Split
from lnsgd.measuring.names import measurer_class
from lnsgd.records import measures
from lnsgd.records.measures import HEADLINES, SPLITS, MeasurementTable

Key = tuple[int, int, str]


def rows_of(path: Path) -> list[tuple[Key, int, float]]:
    rows = pq.read_table(path).to_pylist()
    return [((r["step"], r["replica"], r["measure"]), r["epoch"], r["value"]) for r in rows]


@pytest.mark.parametrize("seed", range(10))
def test_file_has_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Against a dictionary of all rows: replaced rows, going back, writing and reading at will, in groups of 16."""
    monkeypatch.setattr(measures, "_GROUP", 16)
    path = tmp_path / "measures.parquet"
    draw, table, step = random.Random(seed), MeasurementTable(path, resume=False), 0
    expected: dict[Key, tuple[int, float]] = {}
    for epoch in range(150):
        step = draw.choice([step, step + 1, step + draw.randint(1, 9), draw.randint(0, step)])
        found = {r: [Measurement(draw.choice("abc"), "", "", draw.random())] for r in range(draw.randint(0, 3))}
        expected = {key: row for key, row in expected.items() if key[0] <= step}
        expected |= {(step, r, m.measure): (epoch, m.value) for r, measured in found.items() for m in measured}
        table.add(step, epoch, found)
        if draw.random() < 0.3:
            table.write()
        if draw.random() < 0.1:
            table.write()
            table = MeasurementTable(path, resume=True)
    table.write()
    assert rows_of(path) == [(key, *row) for key, row in expected.items()]


def test_rows_that_are_written_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_GROUP", 100)
    table = MeasurementTable(tmp_path / "measures.parquet", resume=False)
    most = 0
    for step in range(1000):
        table.add(step, 0, {0: [Measurement("a", "", "", 0.0)]})
        most = max(most, len(table._rows))
    table.write()
    assert most <= 102
    assert len(table._rows) == 1
    assert len(rows_of(tmp_path / "measures.parquet")) == 1000
    groups = pq.ParquetFile(tmp_path / "measures.parquet")
    assert [groups.metadata.row_group(n).num_rows for n in range(groups.num_row_groups)] == [100] * 10


def test_headlines_are_those_of_the_measurers() -> None:
    names = ("active_neurons", "class_association", "distance_from_init", "hessian_trace")
    assert list(HEADLINES.items()) == [measurer_class(name).headline for name in names]


def test_splits_are_those_of_measuring() -> None:
    assert get_args(Split) == SPLITS
