"""Small runs with several checkpoints, for analysis."""

from pathlib import Path

import pytest
import torch

from lnsgd.cli import main

# A run of 30 steps on 120 images; three checkpoints and θ₀.
SMALL = """\
seed_everything: 3
model:
  class_path: lnsgd.modules.Classifier
  init_args:
    net:
      class_path: lnsgd.models.MLP
      init_args: {widths: [784, 6, 10]}
    loss: lnsgd.losses.LogisticLoss
    label_noise:
      class_path: lnsgd.label_noise.UniformNoise
      init_args: {p: 0.1}
data:
  class_path: lnsgd.data.MNIST
  init_args: {source: sample, subset: 120, batch_size: 12}
trainer:
  accelerator: cpu
  max_epochs: 3
  enable_progress_bar: false
  enable_model_summary: false
  logger: false
  callbacks:
    - class_path: lnsgd.callbacks.ActiveNeurons
    - class_path: lnsgd.callbacks.ClassAssociation
      init_args: {histograms: 0}
    - class_path: lnsgd.callbacks.DistanceFromInit
    - class_path: lnsgd.callbacks.Performance
    - class_path: lnsgd.callbacks.WeightNorms
    - class_path: lnsgd.callbacks.HessianTrace
      init_args: {max_overhead: null}
    - class_path: lnsgd.callbacks.TopEigenvalues
      init_args: {max_overhead: null, count: 2}
    - class_path: lnsgd.callbacks.ImplicitRegularizer
      init_args: {max_overhead: null}
"""

KEEP_ALL = """\
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {filename: "{epoch}-{step}", save_top_k: -1, save_last: true, enable_version_counter: false}
"""


def train(folder: Path, *options: str, config: str = SMALL + KEEP_ALL) -> Path:
    """Trains; gives the run's folder."""
    file = folder.with_suffix(".yaml")
    file.write_text(config)
    main(["fit", "--config", str(file), "--run_dir", str(folder), *options])
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary run."""
    return train(tmp_path_factory.mktemp("analyzed") / "run")


@pytest.fixture(scope="session")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three replicas."""
    config = SMALL.replace("max_epochs: 3", "max_epochs: 1")
    return train(tmp_path_factory.mktemp("analyzed") / "replicated", "--replicas.seeds", "3", config=config)


def weights(seed: int, width: int = 5) -> dict[str, torch.Tensor]:
    """Of an MLP from 3 inputs to 2 outputs."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (width, 3), "0.bias": (width,), "2.weight": (2, width), "2.bias": (2,)}
    return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
