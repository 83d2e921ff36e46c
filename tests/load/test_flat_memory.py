"""Long runs use no more memory than short ones, and have no more files."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.load.long_runs import ordinary, replicated
from tests.load.memory import blocks_per_step, resident_growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")

# The largest growth of resident memory, and the most memory blocks per step; a leak of one object takes one or more.
MAX_GROWTH, MAX_BLOCKS = 0.01, 0.25

# The files of a run, however long it is.
FILES = {"metrics.csv", "measures.parquet", "checkpoints/last.ckpt"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def checkpoints(folder: Path) -> int:
    return len(list((folder / "checkpoints").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "steps"), [("kernel", 20_000), ("general", 1_000)])
def test_memory_of_replicated_steps_does_not_grow(engine: str, steps: int, tmp_path: Path) -> None:
    taken = replicated(tmp_path, engine, steps)
    assert blocks_per_step(taken) < MAX_BLOCKS
    assert resident_growth(taken) < MAX_GROWTH


@pytest.mark.slow
def test_leak_of_one_object_per_step_is_found(tmp_path: Path) -> None:
    assert blocks_per_step(replicated(tmp_path, "kernel", 20_000, leak=True)) > 2 * MAX_BLOCKS


LONG = {
    "kernel": (replicated, ("kernel", 1_000_000), 0),
    "general": (replicated, ("general", 1_000_000), 0),
    "epochs": (ordinary, (200,), 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_memory_of_long_runs_does_not_grow(name: str, tmp_path: Path) -> None:
    """The run is in a separate process, whose memory nothing else has used."""
    run, arguments, pictures = LONG[name]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        taken = pool.submit(run, tmp_path, *arguments).result()
    assert blocks_per_step(taken) < MAX_BLOCKS
    assert resident_growth(taken) < MAX_GROWTH
    assert files(tmp_path) >= FILES
    assert checkpoints(tmp_path) == 2
    assert len(files(tmp_path)) <= len(FILES) + 1 + pictures
