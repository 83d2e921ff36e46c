"""Which folder a run goes to, and from which checkpoint it goes on."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lnsgd.cli import main
from lnsgd.run_choice import choose_folder, given_run, has_ended, last_checkpoint, newest_checkpoint
from lnsgd.run_folder import RunFolder
from tests.stopped_runs import EPOCH_STEPS, write_configs

LIMITS: dict[str, Any] = {"max_epochs": 10, "max_steps": -1, "max_time": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has ended after 10 epochs, 50 steps, with a checkpoint."""
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
def test_a_run_has_ended_unless_the_limits_allow_more(run: RunFolder, changes: dict[str, Any], ended: bool) -> None:
    assert has_ended(run, Namespace(**{**LIMITS, **changes})) is ended
    run.finished.unlink()
    assert not has_ended(run, Namespace(**{**LIMITS, **changes}))


def test_a_run_that_stopped_early_has_ended_under_the_same_limits(run: RunFolder) -> None:
    run.finished.write_text(json.dumps({"epochs": 3, "steps": 15}))
    assert has_ended(run, Namespace(**LIMITS))
    assert not has_ended(run, Namespace(**{**LIMITS, "max_epochs": 9}))


@pytest.mark.parametrize(
    ("stopped_by", "ended"), [("StopAtLoss", True), ("StopAtLoss and StopAtMargin", True), ("limit", False)]
)
def test_a_run_that_a_rule_has_ended_has_ended_under_all_limits(run: RunFolder, stopped_by: str, ended: bool) -> None:
    run.finished.write_text(json.dumps({"epochs": 3, "steps": 15, "stopped_by": stopped_by}))
    assert has_ended(run, Namespace(**{**LIMITS, "max_epochs": 99})) is ended


def test_a_run_that_ended_is_not_started_over(run: RunFolder) -> None:
    run.last_checkpoint.unlink()
    assert has_ended(run, Namespace(**LIMITS))
    with pytest.raises(ValueError, match="no checkpoint to go on from; give another folder"):
        has_ended(run, Namespace(**{**LIMITS, "max_epochs": 11}))


def test_newest_checkpoint(run: RunFolder) -> None:
    assert newest_checkpoint(run) == last_checkpoint(str(run.path)) == str(run.last_checkpoint)
    counted = save(run.checkpoints / "last-v1.ckpt", 40)
    save(run.checkpoints / "epoch=9-step=60.ckpt", 60)
    os.utime(counted, ns=(0, run.last_checkpoint.stat().st_mtime_ns + 1))
    assert newest_checkpoint(run) == str(counted)
    os.utime(counted, ns=(0, 0))
    assert newest_checkpoint(run) == str(run.last_checkpoint)
    assert newest_checkpoint(RunFolder(run.path / "none")) is None


@pytest.mark.parametrize("checkpoint", ["last", "auto"])
def test_of_which_run(checkpoint: str) -> None:
    with pytest.raises(ValueError, match=f"ckpt_path = {checkpoint}: of which run"):
        given_run(None, checkpoint)


def test_a_folder_that_holds_a_run_is_taken_on_request_only(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="holds a run already"):
        choose_folder(str(run.path), None, None, start_over=False)
    assert choose_folder(str(run.path), None, None, start_over=True) == run


def fit(*options: str) -> None:
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *options])


def test_auto_starts_goes_on_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)
    main(["fit", "--config", "plain.yaml", "--run_dir", "whole"])
    run, whole = RunFolder(Path("run")), RunFolder(Path("whole"))
    run.path.mkdir()
    for left in (run.config, run.metrics, run.wandb_id, run.init):  # of a call that died before its first checkpoint
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
