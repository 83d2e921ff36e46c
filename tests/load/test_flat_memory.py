"""Long runs keep no more in memory than short ones, and leave no more files."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.load.long_runs import ordinary, replicated
from tests.load.memory import blocks_a_step, resident_growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")

# Of what is resident; and blocks of memory for each step, of which a leak of one object a step takes one or more.
MOST_GROWTH, MOST_BLOCKS = 0.01, 0.25

# What a run leaves, however long it is.
FILES = {"metrics.csv", "measures.parquet", "checkpoints/last.ckpt"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def checkpoints(folder: Path) -> int:
    return len(list((folder / "checkpoints").iterdir()))


@pytest.mark.parametrize(
    ("engine", "steps"), [("kernel", 20_000), pytest.param("general", 1_000, marks=pytest.mark.slow)]
)
def test_replicated_steps_leave_nothing_in_memory(engine: str, steps: int, tmp_path: Path) -> None:
    taken = replicated(tmp_path, engine, steps)
    assert blocks_a_step(taken) < MOST_BLOCKS
    assert resident_growth(taken) < MOST_GROWTH


@pytest.mark.slow
def test_epochs_leave_nothing_in_memory(tmp_path: Path) -> None:
    taken = ordinary(tmp_path, epochs=12)
    assert blocks_a_step(taken) < MOST_BLOCKS
    assert resident_growth(taken) < MOST_GROWTH


def test_a_leak_of_one_object_a_step_is_found(tmp_path: Path) -> None:
    assert blocks_a_step(replicated(tmp_path, "kernel", 20_000, leak=True)) > 2 * MOST_BLOCKS


LONG = {
    "kernel": (replicated, ("kernel", 1_000_000), 0),
    "general": (replicated, ("general", 1_000_000), 0),
    "epochs": (ordinary, (200,), 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_runs_stay_flat(name: str, tmp_path: Path) -> None:
    """In a process of its own, whose memory nothing else has filled before."""
    run, arguments, pictures = LONG[name]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        taken = pool.submit(run, tmp_path, *arguments).result()
    assert blocks_a_step(taken) < MOST_BLOCKS
    assert resident_growth(taken) < MOST_GROWTH
    assert files(tmp_path) >= FILES
    assert checkpoints(tmp_path) == 2
    assert len(files(tmp_path)) <= len(FILES) + 1 + pictures
