"""Hand-made runs of networks Σ_j φ(θ_j·x): measured curves, and weights before and after training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lnsgd.figures.figure import Figure
from lnsgd.figures.sharpness import FEATURES
from lnsgd.run_folder import RunFolder
from lnsgd.training import train
from tests.figures.handmade import Name, handmade

KEY = "stack.net.layers.0.weight"


def with_weights(run: RunFolder, trained: np.ndarray, initial: np.ndarray | None = None) -> RunFolder:
    """Adds the neurons of every replica, (R, m, d), in the end and before training."""
    run.checkpoints.mkdir()
    torch.save({"state_dict": {KEY: torch.from_numpy(trained)}}, run.last_checkpoint)
    save_file({KEY: torch.from_numpy(trained if initial is None else initial)}, run.init)
    return run


def run_of(
    folder: Path,
    steps: Sequence[int],
    ratios: Mapping[int, np.ndarray],
    trace: np.ndarray,
    others: Mapping[Name, np.ndarray],
) -> RunFolder:
    """A run with these σ_k/σ₁ of the features by k, σ₁ = 2, traces over a minimum of 4, and more curves, all (R, T)."""
    ones = np.ones_like(trace)
    curves: dict[Name, np.ndarray] = {("singular_value_1", "train", FEATURES): 2 * ones, **others}
    curves |= {(f"singular_value_{k}", "train", FEATURES): 2 * ratio for k, ratio in ratios.items()}
    curves["manifold_trace", "train", ""] = 4 * trace
    curves["least_trace", "train", ""] = 4 * ones
    return handmade(folder, steps, curves)


def tiny(figure: Figure, arm: str, folder: Path, *options: str) -> RunFolder:
    """A real run of an arm, a few steps long."""
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    config = ["--config", str(figure.config_path(arm)), "--run_dir", str(folder), "--replicas.seeds", "2"]
    run = train(["fit", *config, *figure.arms[arm], *quiet, *options]).run_folder
    assert run is not None
    return run
