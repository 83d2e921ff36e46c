"""Files appear whole or not at all."""

import os

import pytest
import torch

from lnsgd.checkpoints import WholeCheckpointIO
from lnsgd.run_folder import RunFolder, Throttle, whole_file


def test_a_failed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_checkpoint_leaves_the_old_one(tmp_path, monkeypatch):
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
def test_a_folder_below_a_file_cannot_be_written_to(tmp_path, folder):
    (tmp_path / folder.split("/")[0]).write_text("a file")
    with pytest.raises(OSError, match="cannot write to"):
        RunFolder(tmp_path / folder).check_writable()


def test_run_of_a_checkpoint(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    assert RunFolder.of_checkpoint(run.last_checkpoint) is None  # no record of a run
    run.config.write_text("")
    assert RunFolder.of_checkpoint(run.last_checkpoint) == run
    monkeypatch.chdir(run.checkpoints)
    assert RunFolder.of_checkpoint(RunFolder(run.path).last_checkpoint.relative_to(run.checkpoints)) == run
    assert RunFolder.of_checkpoint(tmp_path / "elsewhere" / "last.ckpt") is None


def test_throttle_waits_in_proportion_to_the_cost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    throttle = Throttle()
    now[0] = 2.0
    assert throttle.due()
    with throttle.writing():
        now[0] += 1.0  # a second's work allows the next after 50
    now[0] += 49.0
    assert not throttle.due()
    now[0] += 2.0
    assert throttle.due()


def test_what_killed_processes_have_left_is_removed(tmp_path):
    run = RunFolder(tmp_path)
    left = [run.path, run.checkpoints, run.figures, run.figures / "replica3"]
    for folder in left:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".file.999999999.part").write_text("half")
        (folder / f".file.{os.getpid()}.part").write_text("being written")
        (folder / "file.part").write_text("the user's")
    run.remove_parts()
    found = sorted(path.name for path in tmp_path.rglob("*.part"))
    assert found == sorted([f".file.{os.getpid()}.part", "file.part"] * len(left))
