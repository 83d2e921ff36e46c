"""Handmade runs of networks Σ_j φ(θ_j·x): measured curves, and weights before and after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from lnsgd.figures.framework.figure import Figure
from lnsgd.figures.sharpness.shared import FEATURES, NEURONS
from lnsgd.runs.folder import RunFolder
from lnsgd.training.cli import train
from tests.figures.handmade import Name, handmade

KEY = "stack.net.layers.0.weight"


def with_weights(run: RunFolder, trained: np.ndarray, initial: np.ndarray | None = None) -> RunFolder:
    """Add the neurons of every replica, (R, m, d), at the end and before training."""
    run.checkpoints.mkdir()
    torch.save({"state_dict": {KEY: torch.from_numpy(trained)}, "global_step": 100}, run.last_checkpoint)
    save_file({KEY: torch.from_numpy(trained if initial is None else initial)}, run.init)
    return run


def config_of(nu: float = 0.1) -> dict[str, Any]:
    """Return the part of a run's config that the figures read."""
    return {
        "model": {"init_args": {"net": {"init_args": {"nu": nu}}}},
        "data": {"init_args": {"dimension": 10, "examples": 15}},
        "trainer": {
            "callbacks": [{"class_path": "lnsgd.callbacks.ClusterCount", "init_args": {"tolerance": 0.03}}],
        },
    }


def run_of(
    folder: Path,
    steps: Sequence[int],
    ratios: Mapping[int, np.ndarray],
    trace: np.ndarray,
    others: Mapping[Name, np.ndarray],
    nu: float = 0.1,
) -> RunFolder:
    """Write a run with σ₁ = 2, the given σ_k/σ₁ of features and neurons, traces over a minimum of 4, and more curves.

    All curves are (R, T); the ratios are by k.
    """
    ones = np.ones_like(trace)
    curves: dict[Name, np.ndarray] = {("singular_value_1", "train", FEATURES): 2 * ones, **others}
    curves["singular_value_1", "", NEURONS] = 2 * ones
    for k, ratio in ratios.items():
        curves |= {
            (f"singular_value_{k}", split, layer): 2 * ratio for split, layer in (("train", FEATURES), ("", NEURONS))
        }
    curves["manifold_trace", "train", ""] = 4 * trace
    curves["least_trace", "train", ""] = 4 * ones
    return handmade(folder, steps, curves, config=config_of(nu))


def tiny(figure: Figure, arm: str, folder: Path, *options: str) -> RunFolder:
    """Train an arm for a few steps."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    config = ["--config", str(figure.config_path(arm)), "--run_dir", str(folder), "--replicas.seeds", "2"]
    run = train(["fit", *config, *figure.arms[arm], *quiet, *options]).run_folder
    assert run is not None
    return run
