"""The capacity of a job: whether cells can be replicas of one run, and how many of them fit into memory."""

import copy
import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser, dict_to_namespace
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn

from lnsgd.callbacks.base import MeasureCallback
from lnsgd.data import TensorData
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas import Replica, ReplicatedData, ReplicatedModule, StepRule, choose_engine
from lnsgd.sweep.cells import Cell, Leaves
from lnsgd.sweep.executors.base import Resources
from lnsgd.sweep.grid import Point
from lnsgd.sweep.packing import Capacity, is_packable

# Memory of a process besides data and replicas: PyTorch, Lightning and their imports, compiled code, and one network
# that is measured.
PROCESS_BYTES = 1.1e9

# Assumed size of a training set if the config does not give it: that of MNIST.
_DEFAULT_TRAIN_SIZE = 60_000

# Assumed number of positions at which a convolution is evaluated: those of a CIFAR-10 image.
_POSITIONS = 32 * 32

# Size of the index that the kernel engine stores for every nonzero input.
_INDEX_BYTES = 4

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)

# Trainer settings that replicas do not support, with the values that are allowed because they have no effect.
_ALLOWED_IN_TRAINER: dict[str, tuple[Any, ...]] = {
    "precision": (None, 32, 64, "32", "64", "32-true", "64-true"),
    "devices": (1, "1", [0], "auto"),
    "num_nodes": (1, "1"),
    "accumulate_grad_batches": (1,),
    "gradient_clip_val": (None, 0, 0.0),
    "limit_train_batches": (None, 1.0),
    "overfit_batches": (0.0, 0),
    "val_check_interval": (None, 1.0),
    "fast_dev_run": (False,),
    "barebones": (False,),
}

# The parts of the rest of a config that may decide whether replicas are possible.
_DECIDING = ("model.", *(f"trainer.{name}" for name in (*_ALLOWED_IN_TRAINER, "accelerator", "callbacks.")))
_DECIDING_DATA = ("data.class_path", "data.init_args.augment", "data.init_args.batch_size")

# Callbacks of Lightning that support replicas, unless they monitor a metric.
_SUPPORTED_CALLBACKS = (
    *("ModelCheckpoint", "TQDMProgressBar", "RichProgressBar", "RichModelSummary", "ModelSummary", "Timer"),
)


class CapacityEstimator:
    """An estimator of job capacities, which builds the module and the data of one cell of each structure.

    A job of R replicas is estimated to take ``PROCESS_BYTES + N · d · (1 + 2w + k) + R · w · (6P + 2mP + 2BA + 2EO)``
    bytes, with w = 4 for each number (8 in double precision):

    * data: N inputs of d numbers, as bytes, as network inputs for training, and a second time while these are
      assembled. The kernel engine instead stores the nonzero inputs with their indices (k = 4). Images are shared by
      all replicas; inputs that are drawn at random are not, and count R times;
    * P parameters of each replica: weights, initial weights, gradient, update, copies of the weights in validation and
      where they are drawn; with momentum (m = 1) also the velocity, and its copy in a checkpoint;
    * A numbers for each of the B examples of a batch, twice because of the backward pass: the inputs of the first
      layer, and the outputs of all layers with weights, before and after their activation;
    * O such outputs for each of the E examples of a validation batch, before and after their activation.

    A training set is assumed to have 60,000 examples if the config does not give its size, whatever part of it is
    trained on. For networks that begin with a convolution d is 3 · 32 · 32, and a convolution has 32 · 32 positions.
    The estimate is meant to be an upper bound: jobs that were measured took 0.7 to 0.95 of it.

    Args:
        first: The resolved config of the sweep's first cell.
        read: Maps the options of a cell to its resolved config.
        resources: The resources of a job.
        max_replicas: The largest number of replicas of a job, whatever the memory.
    """

    def __init__(
        self, first: Leaves, read: Callable[[Point], Mapping[str, Any]], resources: Resources, max_replicas: int
    ) -> None:
        self._first = first
        self._read = read
        self._resources = resources
        self._max_replicas = max_replicas
        self._base = {path: _to_text(value) for path, value in first.items() if _is_deciding(path)}
        self._known: dict[frozenset[tuple[str, str]], Capacity] = {}
        self._examples: dict[frozenset[tuple[str, str]], tuple[Cell, Mapping[str, Any]]] = {}
        self._parser = ArgumentParser(exit_on_error=False)
        self._parser.add_subclass_arguments(LightningModule, "model")
        self._parser.add_subclass_arguments(LightningDataModule, "data")

    def __call__(self, cell: Cell) -> Capacity:
        """Estimate the capacity of a job for a cell and those that differ from it only in packable settings."""
        changes = ((path, _to_text(value)) for path, value in cell.changes.items() if _is_deciding(path))
        structure = frozenset(change for change in changes if self._base.get(change[0]) != change[1])
        if structure not in self._known:
            self._known[structure] = self._estimate(self._resolve(cell))
        return self._known[structure]

    def _resolve(self, cell: Cell) -> Mapping[str, Any]:
        """Resolve the config of a cell by changing that of another cell with the same paths, because reading is slow.

        A value that is null in one of two configs may have no path in it, and other classes have other paths.
        """
        paths = frozenset(
            (path, _to_text(value))
            for path, value in cell.changes.items()
            if value is None or self._first.get(path) is None or path.endswith("class_path")
        )
        if paths not in self._examples:
            self._examples[paths] = cell, self._read(cell.options)
        example, config = self._examples[paths]
        different = {
            path: cell.changes.get(path, self._first.get(path))
            for path in cell.changes.keys() | example.changes
            if cell.changes.get(path) != example.changes.get(path)
        }
        return _replace_values(config, different)

    def _estimate(self, config: Mapping[str, Any]) -> Capacity:
        obstacle = _find_trainer_obstacle(config["trainer"]) or _find_callback_obstacle(
            config["trainer"].get("callbacks")
        )
        if obstacle:
            return Capacity(1, obstacle)
        # A cell that cannot be built, such as a network without layers, fails as a run of its own, and its row says so.
        try:
            built = self._build(config)
            assert isinstance(built.model, LightningModule)
            ReplicatedData(built.data, [Replica(0)])
            replicated = ReplicatedModule(built.model, [Replica(0)])
            template = replicated.template
            momentum = template.make_optimizer(list(template.net.parameters())).defaults["momentum"]
            rule = StepRule(template.net, template.loss, template.label_noise.targets, momentum)
            engine, why = choose_engine("auto", rule, self._device(config["trainer"]))
        except ValueError as error:
            return Capacity(1, " ".join(str(error).split()))
        is_kernel = engine.name == "kernel"
        number = 8 if str(config["trainer"].get("precision")).startswith("64") else 4
        each = replica_bytes(template, built.data, bool(momentum), number)
        shared, inputs = PROCESS_BYTES, data_bytes(template, built.data, is_kernel, number)
        if has_drawn_inputs(built.data):
            each += inputs
        else:
            shared += inputs
        fit = max(1, int((self._resources.memory - shared) // each))
        reason = f"engine {engine.name} ({why}), {_format_size(each)} each"
        if fit < self._max_replicas:
            reason += f", memory holds {fit}"
        # An ordinary run takes its steps one by one, the kernel takes many in one call.
        return Capacity(min(fit, self._max_replicas), reason, replicates_single=is_kernel)

    def _build(self, config: Mapping[str, Any]) -> Any:
        """Build module and data of a resolved config, which need not be checked again."""
        return self._parser.instantiate(dict_to_namespace({"model": config["model"], "data": config["data"]}))

    def _device(self, trainer: Mapping[str, Any]) -> torch.device:
        accelerator = trainer.get("accelerator")
        on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and self._resources.gpu)
        return torch.device("cuda" if on_gpu else "cpu")


def data_bytes(module: SupervisedModule, data: TensorData, kernel: bool, number: int) -> float:
    """Return the bytes of a data set by the formula of `CapacityEstimator`, for numbers of ``number`` bytes."""
    examples = getattr(data, "train_size", _DEFAULT_TRAIN_SIZE)
    return examples * _input_size(module) * (1 + 2 * number + (_INDEX_BYTES if kernel else 0))


def has_drawn_inputs(data: TensorData) -> bool:
    """Return whether inputs are drawn at random, so that each replica may have its own; images are shared by all."""
    return hasattr(data, "train_size")


def replica_bytes(module: SupervisedModule, data: TensorData, momentum: bool, number: int) -> float:
    """Return the bytes of one replica by the formula of `CapacityEstimator`, for numbers of ``number`` bytes."""
    parameters = sum(p.numel() for p in module.net.parameters())
    outputs = sum(_output_size(layer) for layer in _weighted_layers(module))
    batch = data.batch_size or data.subset or getattr(data, "train_size", None) or _DEFAULT_TRAIN_SIZE
    in_training = 2 * batch * (_input_size(module) + 2 * outputs)
    in_validation = 2 * data.eval_batch_size * outputs
    return number * ((6 + 2 * momentum) * parameters + in_training + in_validation)


def _weighted_layers(module: SupervisedModule) -> list[nn.Module]:
    return [layer for layer in module.net.modules() if isinstance(layer, (nn.Linear, *_CONVOLUTIONS))]


def _input_size(module: SupervisedModule) -> int:
    """Return how many numbers one network input has."""
    layers = _weighted_layers(module)
    return layers[0].in_features if layers and isinstance(layers[0], nn.Linear) else 3 * _POSITIONS


def _output_size(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    assert isinstance(layer, _CONVOLUTIONS)
    return layer.out_channels * _POSITIONS


def _replace_values(config: Mapping[str, Any], values: Leaves) -> Mapping[str, Any]:
    """Copy a nested config with other values of some of its leaves, by path as in `lnsgd.sweep.cells.leaves`."""
    changed = copy.deepcopy(dict(config))
    for path, value in values.items():
        *parents, name = path.split(".")
        at: Any = changed
        for parent in parents:
            at = at[int(parent)] if isinstance(at, list) else at[parent]
        at[int(name) if isinstance(at, list) else name] = value
    return changed


def _find_trainer_obstacle(trainer: Mapping[str, Any]) -> str | None:
    for name, allowed in _ALLOWED_IN_TRAINER.items():
        if name in trainer and trainer[name] not in allowed:
            return f"replicas do not support trainer.{name} = {trainer[name]}"
    return None


def _find_callback_obstacle(callbacks: Any) -> str | None:
    """Name a callback that does not support replicas: it would see another kind of run than it was written for."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []:
        path = callback["class_path"]
        module, _, name = path.rpartition(".")
        if module.startswith("lnsgd.callbacks"):
            continue
        if module.startswith("pytorch_lightning.") or module.startswith("lightning."):
            monitored = (callback.get("init_args") or {}).get("monitor")
            if name in _SUPPORTED_CALLBACKS and not monitored:
                continue
        kind = getattr(importlib.import_module(module), name)
        if not (issubclass(kind, MeasureCallback) or hasattr(kind, "next_stop")):
            return f"its callback {name} does not support replicas: it has no next_stop(step)"
    return None


def _is_deciding(path: str) -> bool:
    return not is_packable(path) and (path.startswith(_DECIDING) or path in _DECIDING_DATA)


def _to_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _format_size(number: float) -> str:
    return f"{number / 1e9:.2g} GB" if number >= 1e9 else f"{max(number / 1e6, 0.1):.2g} MB"
