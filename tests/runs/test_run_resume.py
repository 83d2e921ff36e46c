"""The folder of a run, and the checkpoint from which it resumes."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lnsgd.cli import main
from lnsgd.runs.claims import released_at_end
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.resume import choose_folder, find_newest, given_run, last_checkpoint, newest_checkpoint, set_aside_later
from lnsgd.training.run_choice import has_ended
from tests.stopped_runs import EPOCH_STEPS, write_configs

LIMITS: dict[str, Any] = {"max_epochs": 10, "max_steps": -1, "max_time": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Write a run that has ended after 10 epochs and 50 steps, with a checkpoint."""
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"trainer": LIMITS}))
    run.finished.write_text(json.dumps({"epochs": 10, "steps": 50}))
    save(run.last_checkpoint, 50)
    return run


def save(path: Path, step: int) -> Path:
    torch.save({"global_step": step, "state_dict": {"w": torch.full((300,), float(step))}}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({}, True),
        ({"max_epochs": 8}, True),
        ({"max_epochs": 11}, False),
        ({"max_epochs": -1}, False),
        ({"max_epochs": None}, False),
        ({"max_epochs": 11, "max_steps": 50}, True),
        ({"max_epochs": 11, "max_steps": 51}, False),
    ],
    ids=str,
)
def test_run_has_ended_unless_limits_allow_more(run: RunFolder, changes: dict[str, Any], ended: bool) -> None:
    assert has_ended(run, Namespace(**{**LIMITS, **changes})) is ended
    run.finished.unlink()
    assert not has_ended(run, Namespace(**{**LIMITS, **changes}))


def test_run_stopped_early_has_ended_under_the_same_limits(run: RunFolder) -> None:
    run.finished.write_text(json.dumps({"epochs": 3, "steps": 15}))
    assert has_ended(run, Namespace(**LIMITS))
    assert not has_ended(run, Namespace(**{**LIMITS, "max_epochs": 9}))


@pytest.mark.parametrize(
    ("stopped_by", "ended"), [("StopAtLoss", True), ("StopAtLoss and StopAtMargin", True), ("limit", False)]
)
def test_run_ended_by_a_stopping_rule_has_ended_under_all_limits(run: RunFolder, stopped_by: str, ended: bool) -> None:
    run.finished.write_text(json.dumps({"epochs": 3, "steps": 15, "stopped_by": stopped_by}))
    assert has_ended(run, Namespace(**{**LIMITS, "max_epochs": 99})) is ended


def test_ended_run_without_checkpoint_is_not_started_over(run: RunFolder) -> None:
    run.last_checkpoint.unlink()
    assert has_ended(run, Namespace(**LIMITS))
    with pytest.raises(ValueError, match="no checkpoint to resume from; give another folder"):
        has_ended(run, Namespace(**{**LIMITS, "max_epochs": 11}))


def test_newest_checkpoint_is_found(run: RunFolder) -> None:
    """By the steps, whatever the clock says: files are copied, and clocks of machines differ."""
    assert newest_checkpoint(run) == last_checkpoint(str(run.path)) == str(run.last_checkpoint)
    later = run.last_checkpoint.stat().st_mtime_ns + 1
    for name, step in (("last-v1", 40), ("epoch=3", 50), ("before", 49)):
        os.utime(save(run.checkpoints / f"{name}.ckpt", step), ns=(later, later))
    assert newest_checkpoint(run) == str(run.last_checkpoint)  # of equal steps, the one named last
    newest = save(run.checkpoints / "epoch=9-step=60.ckpt", 60)
    os.utime(newest, ns=(0, 0))
    assert newest_checkpoint(run) == str(newest)
    assert newest_checkpoint(RunFolder(run.path / "none")) is None


def test_later_checkpoints_are_set_aside_when_a_run_goes_back(run: RunFolder) -> None:
    save(run.checkpoints / "step=30.ckpt", 30)
    assert set_aside_later(run, 40) == [run.checkpoints / "last.ckpt.set-aside"]
    assert newest_checkpoint(run) == str(run.checkpoints / "step=30.ckpt")


def test_step_is_read_without_the_weights(run: RunFolder) -> None:
    """A damaged weight is found when its checkpoint would be taken."""
    content = bytearray(run.last_checkpoint.read_bytes())
    at = content.find(torch.full((300,), 50.0).numpy().tobytes())
    content[at + 2] ^= 1
    run.last_checkpoint.write_bytes(content)
    older = save(run.checkpoints / "step=30.ckpt", 30)
    newest = find_newest(run)
    assert (newest.path, newest.step) == (older, 30)
    assert "checksum" in newest.damaged[0]


@pytest.mark.parametrize("checkpoint", ["last", "auto"])
def test_resuming_without_a_folder_is_refused(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=f"ckpt_path = {checkpoint} needs the folder of a run"):
        given_run(None, checkpoint)


def test_folder_of_another_run_is_used_only_on_request(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="holds a run already"):
        choose_folder(str(run.path), None, None, start_over=False)
    with released_at_end():
        assert choose_folder(str(run.path), None, None, start_over=True) == run


def test_each_call_chooses_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nothing is written yet."""
    monkeypatch.chdir(tmp_path)
    with released_at_end():
        chosen = [choose_folder(None, None, ["mnist.yaml"], start_over=False).path for _ in range(3)]
        assert [str(path) for path in chosen] == ["runs/mnist", "runs/mnist-2", "runs/mnist-3"]
    assert not Path("runs").exists()


def fit(*options: str) -> None:
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *options])


def test_auto_starts_resumes_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    main(["fit", "--config", "plain.yaml", "--run_dir", "whole"])
    run, whole = RunFolder(Path("run")), RunFolder(Path("whole"))
    run.path.mkdir()
    for left in (
        run.config,
        run.metrics,
        run.wandb_id,
        run.init,
    ):  # of a command that ended before its first checkpoint
        left.write_text("left")
    fit("--trainer.max_epochs", "1")
    assert torch.load(run.last_checkpoint, weights_only=False)["global_step"] == EPOCH_STEPS
    fit()
    ends = [torch.load(folder.last_checkpoint, weights_only=False)["state_dict"] for folder in (run, whole)]
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    capsys.readouterr()
    fit()
    assert capsys.readouterr().out == "The run in run has reached its end already\n"
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
