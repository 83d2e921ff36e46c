"""A run that torchrun starts: two processes (gloo), or one for each GPU (NCCL), train like one with the same batch."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lnsgd.runs.folder import RunFolder
from tests.small_config import fit, instance, small_config, write_config

ROOT = Path(__file__).parents[2]
DEADLINE = 300

# Runs in float64 differ by the order of sums only.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}

DOUBLE = ("--trainer.precision", "64-true")


def config(device: torch.device) -> dict:
    """A run with label noise; the last batch of an epoch has 7 examples, which two processes cannot share evenly."""
    measures = [instance(f"lnsgd.callbacks.{name}") for name in ("ActiveNeurons", "DistanceFromInit", "HessianTrace")]
    return small_config(
        data={"subset": 97, "batch_size": 30, "val_size": 51},
        trainer={"accelerator": "gpu" if device.type == "cuda" else "cpu", "log_every_n_steps": 1},
        callbacks=measures,
    )


def fit_by_torchrun(device: torch.device, run_dir: Path, processes: int) -> RunFolder:
    """Train as the guide says: ``torchrun --nproc_per_node N -m lnsgd fit … --trainer.strategy ddp``."""
    file = write_config(run_dir.with_name("config.yaml"), config(device))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m", "lnsgd"]
    strategy = ["--trainer.strategy", "ddp", "--trainer.devices", str(processes)]
    ended = subprocess.run(
        [sys.executable, *launcher, "fit", "--config", str(file), "--run_dir", str(run_dir), *DOUBLE, *strategy],
        cwd=run_dir.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return RunFolder(run_dir)


@pytest.mark.slow
def test_processes_of_torchrun_train_like_one(device, tmp_path):
    """The weights, everything that is logged, and every measure are the same; each process has its part of a batch."""
    processes = torch.cuda.device_count() if device.type == "cuda" else 2
    one = fit(config(device), tmp_path / "one", *DOUBLE)
    many = fit_by_torchrun(device, tmp_path / "many", processes)
    weights, expected = (torch.load(run.last_checkpoint, weights_only=False, map_location="cpu") for run in (many, one))
    assert weights["global_step"] == expected["global_step"] == 12
    assert weights["state_dict"].keys() == expected["state_dict"].keys()
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(weights["state_dict"][name], tensor, **CLOSE)
    ours, theirs = (pd.read_csv(run.metrics) for run in (many, one))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-9, atol=1e-11)
    ours, theirs = (pd.read_parquet(run.measures) for run in (many, one))
    assert {"active_count", "distance_from_init", "hessian_trace"} <= set(theirs["measure"])
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-9, atol=1e-11)
