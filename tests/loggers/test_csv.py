"""``metrics.csv`` has all rows, whichever of them are in memory."""

import csv
import random
import tracemalloc
from pathlib import Path

import pytest

from lnsgd.loggers import CSVLogger


def rows_of(folder: Path) -> dict[int, dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): {k: float(v) for k, v in row.items() if v and k != "step"} for row in rows}


@pytest.mark.parametrize("seed", range(20))
def test_file_has_what_was_logged(tmp_path: Path, seed: int) -> None:
    """Compare with a dictionary of all rows: new columns, several calls per step, going back, writing and reading."""
    draw, logger, step = random.Random(seed), CSVLogger(str(tmp_path)), 0
    expected: dict[int, dict[str, float]] = {}
    for _ in range(200):
        step = draw.choice([step, step + 1, step + draw.randint(1, 9), draw.randint(0, step)])
        values = {name: draw.random() for name in draw.sample(["loss", "a, quoted", "lr", "é"], draw.randint(1, 3))}
        expected = {s: row for s, row in expected.items() if s <= step}
        expected.setdefault(step, {}).update(values)
        logger.log_metrics(values, step)
        if draw.random() < 0.3:
            logger.flush()
        if draw.random() < 0.1:
            logger.flush()
            logger = CSVLogger(str(tmp_path), resume=True)
    logger.flush()
    found = rows_of(tmp_path)
    assert list(found) == sorted(expected)
    assert found == expected


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    held = []
    tracemalloc.start()
    for step in range(60_001):
        logger.log_metrics({"loss": step / 7, "lr": 0.1}, step)
        if step % 20_000 == 0 and step:
            logger.flush()
            held.append(tracemalloc.get_traced_memory()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held[-1] - held[0] < 20_000  # bytes; 40,000 rows between
    assert peak < 20e6
    assert len(rows_of(tmp_path)) == 60_001


@pytest.mark.parametrize(
    "content", [b"step,epoch,a\r\n0,0,0.5\r\n1,0,0.2", b"step,epoch,a\r\n0,0\r\n", b"a,b\r\n1,2\r\n"]
)
def test_damaged_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.csv cannot be read .*; move it away"):
        CSVLogger(str(tmp_path), resume=True)
    assert path.read_bytes() == content


def test_file_cut_off_by_another_process_is_not_extended(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    for step in range(10):
        logger.log_metrics({"a": 1.0}, step)
    logger.flush()
    (tmp_path / "metrics.csv").write_bytes(b"step,epoch,a\r\n")
    logger.log_metrics({"a": 1.0}, 10)
    with pytest.raises(ValueError, match="was cut off while the run wrote to it"):
        logger.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
