"""Files appear whole or not at all."""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lnsgd.runs.checkpoints import WholeCheckpointIO
from lnsgd.runs.writing import Throttle, check_writable, remove_parts, whole_file


def test_failed_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_checkpoint_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(2)}}, path)

    def half(checkpoint, target):
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        WholeCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert torch.equal(torch.load(path)["state_dict"]["w"], torch.ones(2))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["sub/run", "run"])
def test_folder_below_a_file_is_refused(tmp_path, folder):
    (tmp_path / folder.split("/")[0]).write_text("a file")
    with pytest.raises(OSError, match="cannot write to"):
        check_writable(tmp_path / folder)


def test_throttle_waits_in_proportion_to_the_cost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    throttle = Throttle()
    now[0] = 2.0
    assert throttle.due()
    with throttle.writing():
        now[0] += 1.0  # one second of writing allows the next after 50
    now[0] += 49.0
    assert not throttle.due()
    now[0] += 2.0
    assert throttle.due()


@pytest.fixture(params=["asked for", "not yet asked for"])
def ended(request) -> Iterator[int]:
    """Start a process that has ended, with or without its parent having asked for its exit code."""
    process = subprocess.Popen(["true"])
    if request.param == "asked for":
        process.wait()
    elif not Path("/proc/self/stat").exists():
        pytest.skip("the system does not tell whether a process has ended")
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


@pytest.mark.parametrize("alone", [False, True])
def test_unfinished_files_of_killed_processes_are_removed(tmp_path, ended, alone):
    here = platform.node()
    gone = f".file.{here}-{ended}.part"
    others = [f".file.{here}-{os.getppid()}.part", f".file.elsewhere-{ended}.part"]
    kept = [f".file.{here}-{os.getpid()}.part", "file.part", ".file.part" if not alone else "file"]
    folders = [tmp_path, tmp_path / "checkpoints", tmp_path / "figures" / "replica3"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in [gone, *others, *kept]:
            (folder / name).write_text("half")
    remove_parts(tmp_path, alone)
    found = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert found == sorted((kept if alone else [*kept, *others]) * len(folders))


def test_file_being_written_is_not_removed(tmp_path):
    with whole_file(tmp_path / "file") as part:
        part.write_text("half")
        remove_parts(tmp_path, alone=True)
        assert part.exists()
        if (child := os.fork()) == 0:
            remove_parts(tmp_path)  # another process sees that this one is alive
            os._exit(0 if part.exists() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_missing_folder_has_no_unfinished_files(tmp_path):
    remove_parts(tmp_path / "nowhere")
