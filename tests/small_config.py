"""The config of a small run as data: what most tests train, and what one of them changes."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder

Config = dict[str, Any]


def instance(class_path: str, **init_args: Any) -> Config:
    """A config's entry for one object."""
    return {"class_path": class_path, "init_args": init_args}


MOMENTUM = instance("torch.optim.SGD", lr=0.1, momentum=0.9)


def mlp(*widths: int) -> Config:
    """A config's entry for an `lnsgd.models.MLP`."""
    return instance("lnsgd.models.MLP", widths=list(widths))


def uniform_noise(p: float) -> Config:
    """A config's entry for an `lnsgd.label_noise.UniformNoise`."""
    return instance("lnsgd.label_noise.UniformNoise", p=p)


def small_config(
    *,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[Config] = (),
    **top: Any,
) -> Config:
    """Five steps an epoch, three epochs, of an MLP 784-12-10 on 100 images of MNIST's sample, which takes a second.

    SGD has momentum, so that the optimizer has a state that a resumed run needs.

    Args:
        model: Arguments of `lnsgd.modules.Classifier` to add or replace.
        data: Arguments of `lnsgd.data.MNIST` to add or replace.
        trainer: Arguments of the Trainer to add or replace.
        callbacks: Its callbacks.
        top: Other entries of the config, such as ``seed_everything``.
    """
    module = {"net": mlp(784, 12, 10), "label_noise": uniform_noise(0.2), "optimizer": MOMENTUM, **(model or {})}
    images = {"source": "sample", "subset": 100, "batch_size": 20, **(data or {})}
    options = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **(trainer or {}),
        "callbacks": list(callbacks),
    }
    config = {
        "model": instance("lnsgd.modules.Classifier", **module),
        "data": instance("lnsgd.data.MNIST", **images),
        "trainer": options,
        **top,
    }
    return deepcopy(config)  # tests change what they get


def write_config(path: Path, config: Config) -> Path:
    """Write a config as YAML.

    Returns:
        The path, as it was given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def fit(config: Config | Path, run_dir: Path, *options: str) -> RunFolder:
    """Train with the command ``lnsgd fit``.

    Args:
        config: The config, or a file with it.
        run_dir: The run's folder; a config that is not a file is written beside it.
        options: Further options of the command.
    """
    file = config if isinstance(config, Path) else write_config(run_dir.with_name(f"{run_dir.name}.yaml"), config)
    main(["fit", "--config", str(file), "--run_dir", str(run_dir), *options])
    return RunFolder(run_dir)
