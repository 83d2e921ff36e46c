"""Runs that are stopped on one device and resumed on the same, bit for bit, or on another, up to the order of sums."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lnsgd.runs.folder import RunFolder
from tests.small_config import Config, fit, instance, small_config, write_config
from tests.stopped_runs import assert_same_run, fit_until_stopped

AUTO = ("--ckpt_path", "auto")
SMOOTHING = instance("lnsgd.label_noise.LabelSmoothing", p=0.2)  # which does not depend on the device


def accelerator(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else "cpu"


def config(device: torch.device, replicas: bool = False, **options: Any) -> Config:
    distance = instance("lnsgd.callbacks.DistanceFromInit", every_n_steps=2)
    further = {"replicas": {"seeds": 3, "engine": "general"}} if replicas else {}
    trainer = {"accelerator": accelerator(device), "log_every_n_steps": 1, **options}
    return small_config(data={"val_size": 50}, trainer=trainer, callbacks=[distance], **further)


@pytest.mark.parametrize("replicas", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one", "replicas"])
def test_stopped_run_resumes_bit_for_bit(device, tmp_path: Path, replicas: bool):
    """With label noise and momentum. The general engine compiles its step, on CUDA as a graph."""
    whole = fit(config(device, replicas), tmp_path / "whole")
    stopped = config(device, replicas)
    stopped["trainer"]["callbacks"].append(instance("tests.stopped_runs.SignalAt", step=5 if replicas else 7))
    file = write_config(tmp_path / "stopped.yaml", stopped)
    fit_until_stopped("--config", str(file), "--run_dir", str(tmp_path / "run"))
    resumed = fit(config(device, replicas), tmp_path / "run", *AUTO)
    assert_same_run(resumed, whole)


def test_run_resumes_on_another_device(device, tmp_path: Path):
    """The first epoch is on the device and the others on the CPU, and the other way round."""
    cpu, double = torch.device("cpu"), ("--trainer.precision", "64-true", "--model.label_noise", str(SMOOTHING))
    whole = fit(config(cpu), tmp_path / "whole", *double)
    for first, second in {(device, cpu), (cpu, device)}:
        run = tmp_path / f"{first.type}-{second.type}"
        fit(config(first, max_epochs=1), run, *double)
        assert_close(fit(config(second), run, *double, *AUTO), whole)


def assert_close(run: RunFolder, other: RunFolder) -> None:
    ours, theirs = (
        torch.load(folder.last_checkpoint, weights_only=False, map_location="cpu") for folder in (run, other)
    )
    assert ours["global_step"] == theirs["global_step"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for name, tensor in ours["state_dict"].items():
        torch.testing.assert_close(tensor, theirs["state_dict"][name], rtol=1e-9, atol=1e-11)
