"""Whether cells can be replicas of one run, and how many fit into memory."""

import copy
import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser, dict_to_namespace
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn

from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.data import ReplicatedData, TensorData
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.supervised import SupervisedModule
from lnsgd.replicas import Recipe, Replica, choose_engine
from lnsgd.sweep.cells import Cell, Leaves
from lnsgd.sweep.executor import Resources
from lnsgd.sweep.grid import Point
from lnsgd.sweep.packing import Verdict, packable

# What a process takes beside data and replicas: PyTorch, Lightning and what else it imports or compiles, one network
# that is measured.
PROCESS_BYTES = 1.1e9

# Examples of a training set, where the config does not say how many it has: those of MNIST.
_WHOLE_SET = 60_000

# Positions at which a convolution is assumed to be evaluated: those of a CIFAR-10 image.
_POSITIONS = 32 * 32

# Where in its input a number stands, as the kernel keeps it.
_PLACE_BYTES = 4

# Trainer settings that replicas do not have, with the values that mean nothing to them.
_TRAINER: dict[str, tuple[Any, ...]] = {
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

# Of the rest of a config, what may decide whether replicas are possible.
_DECIDING = ("model.", *(f"trainer.{name}" for name in (*_TRAINER, "accelerator", "callbacks.")))
_DECIDING_DATA = ("data.class_path", "data.init_args.augment", "data.init_args.batch_size")

_LIGHTNINGS_OWN = ("ModelCheckpoint", "TQDMProgressBar", "RichProgressBar", "RichModelSummary", "ModelSummary", "Timer")


class Judge:
    """Says whether cells can be replicas, by building the module and the data of one cell of each structure.

    A job of R replicas is estimated to take ``PROCESS_BYTES + N · d · (1 + 2w + k) + R · w · (6P + 2mP + 2BA + 2EO)``
    bytes, with w = 4 for each number (8 in double precision):

    * the data, N inputs of d numbers: as bytes, as network inputs for training, and once more while these are put
      together; where the kernel keeps those that are not zero, with their places (k = 4), in place of that. Images
      are shared; inputs that are drawn are not, and count R times;
    * P parameters of each replica: weights, initial weights, gradient, update, copies of the weights in validation and
      where they are drawn; with momentum (m = 1) the velocity, and its copy in a checkpoint;
    * A numbers for each of the B examples of a batch, twice for the backward pass: the inputs of the first layer, and
      the outputs of all layers with weights, before and after their activation;
    * O such outputs for each of the E examples of a validation batch, before and after their activation.

    A training set whose size the config does not say has 60,000 examples, whatever part of it is trained on; of
    networks that begin with a convolution d is 3 · 32 · 32, and a convolution has 32 · 32 positions. It is meant to be
    reached from below: jobs that were measured took 0.7 to 0.95 of it.

    Args:
        first: The resolved config that cells differ from.
        read: From a cell's options to its resolved config.
        resources: What a job can count on.
        most: Replicas of a job at most, whatever the memory.
    """

    def __init__(
        self, first: Leaves, read: Callable[[Point], Mapping[str, Any]], resources: Resources, most: int
    ) -> None:
        self._first = first
        self._read = read
        self._resources = resources
        self._most = most
        self._base = {path: _text(value) for path, value in first.items() if _decides(path)}
        self._known: dict[frozenset[tuple[str, str]], Verdict] = {}
        self._examples: dict[frozenset[tuple[str, str]], tuple[Cell, Mapping[str, Any]]] = {}
        self._parser = ArgumentParser(exit_on_error=False)
        self._parser.add_subclass_arguments(LightningModule, "model")
        self._parser.add_subclass_arguments(LightningDataModule, "data")

    def __call__(self, cell: Cell) -> Verdict:
        """Whether a cell and those that differ from it only in what replicas may differ in can be one run."""
        changes = ((path, _text(value)) for path, value in cell.changes.items() if _decides(path))
        structure = frozenset(change for change in changes if self._base.get(change[0]) != change[1])
        if structure not in self._known:
            self._known[structure] = self._judge(self._resolved(cell))
        return self._known[structure]

    def _resolved(self, cell: Cell) -> Mapping[str, Any]:
        """A cell's resolved config: that of another with the same paths in it, changed, since to read one takes long.

        What is null in one of two configs may not be there in it, and other classes have other paths.
        """
        paths = frozenset(
            (path, _text(value))
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
        return _with_values(config, different)

    def _judge(self, config: Mapping[str, Any]) -> Verdict:
        why_not = _trainer_refuses(config["trainer"]) or _callbacks_refuse(config["trainer"].get("callbacks"))
        if why_not:
            return Verdict(1, why_not)
        # What cannot be built, such as a network of no layers, fails as a run of its own, with a row that says so.
        try:
            built = self._build(config)
            assert isinstance(built.model, LightningModule)
            ReplicatedData(built.data, [Replica(0)])
            replicated = ReplicatedModule(built.model, [Replica(0)])
            cell = replicated.cell
            momentum = cell.make_optimizer(list(cell.net.parameters())).defaults["momentum"]
            recipe = Recipe(cell.net, cell.loss, cell.label_noise.targets, momentum)
            engine, why = choose_engine("auto", recipe, self._device(config["trainer"]))
        except ValueError as error:
            return Verdict(1, " ".join(str(error).split()))
        number = 8 if str(config["trainer"].get("precision")).startswith("64") else 4
        each = replica_bytes(cell, built.data, bool(momentum), number)
        shared, inputs = PROCESS_BYTES, data_bytes(cell, built.data, engine.name == "kernel", number)
        if is_drawn(built.data):
            each += inputs
        else:
            shared += inputs
        fit = max(1, int((self._resources.memory - shared) // each))
        reason = f"engine {engine.name} ({why}), {_size(each)} each"
        if fit < self._most:
            reason += f", memory holds {fit}"
        # An ordinary run takes its steps one by one, the kernel many in one call.
        return Verdict(min(fit, self._most), reason, alone=engine.name == "kernel")

    def _build(self, config: Mapping[str, Any]) -> Any:
        """Module and data of a resolved config, which need not be checked again."""
        return self._parser.instantiate(dict_to_namespace({"model": config["model"], "data": config["data"]}))

    def _device(self, trainer: Mapping[str, Any]) -> torch.device:
        accelerator = trainer.get("accelerator")
        on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and self._resources.gpu)
        return torch.device("cuda" if on_gpu else "cpu")


def data_bytes(module: SupervisedModule, data: TensorData, kernel: bool, number: int) -> float:
    """Bytes of a data set by the formula of `Judge`, for numbers of so many bytes."""
    examples = getattr(data, "train_size", _WHOLE_SET)
    return examples * _inputs(module) * (1 + 2 * number + (_PLACE_BYTES if kernel else 0))


def is_drawn(data: TensorData) -> bool:
    """Whether inputs are drawn, so that each replica may have its own; images are the same for all."""
    return hasattr(data, "train_size")


def replica_bytes(module: SupervisedModule, data: TensorData, momentum: bool, number: int) -> float:
    """Bytes of one replica by the formula of `Judge`, for numbers of so many bytes."""
    parameters = sum(p.numel() for p in module.net.parameters())
    outputs = sum(_outputs(layer) for layer in _layers(module))
    batch = data.batch_size or data.subset or getattr(data, "train_size", None) or _WHOLE_SET
    in_training = 2 * batch * (_inputs(module) + 2 * outputs)
    in_validation = 2 * data.eval_batch_size * outputs
    return number * ((6 + 2 * momentum) * parameters + in_training + in_validation)


def _layers(module: SupervisedModule) -> list[nn.Module]:
    """All layers with weights."""
    return [layer for layer in module.net.modules() if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))]


def _inputs(module: SupervisedModule) -> int:
    """Numbers of a network input."""
    layers = _layers(module)
    return layers[0].in_features if layers and isinstance(layers[0], nn.Linear) else 3 * _POSITIONS


def _outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.out_channels * _POSITIONS


def _with_values(config: Mapping[str, Any], values: Leaves) -> Mapping[str, Any]:
    """A nested config with other values of leaves that it has, by path as in `lnsgd.sweep.cells.leaves`."""
    changed = copy.deepcopy(dict(config))
    for path, value in values.items():
        *parents, name = path.split(".")
        at: Any = changed
        for parent in parents:
            at = at[int(parent)] if isinstance(at, list) else at[parent]
        at[int(name) if isinstance(at, list) else name] = value
    return changed


def _trainer_refuses(trainer: Mapping[str, Any]) -> str | None:
    for name, allowed in _TRAINER.items():
        if name in trainer and trainer[name] not in allowed:
            return f"replicas cannot have trainer.{name} = {trainer[name]}"
    return None


def _callbacks_refuse(callbacks: Any) -> str | None:
    """Callbacks that do not know of replicas would see a run they were not made for."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []:
        path = callback["class_path"]
        module, _, name = path.rpartition(".")
        if module.startswith("lnsgd.callbacks"):
            continue
        if module.startswith("pytorch_lightning.") or module.startswith("lightning."):
            monitored = (callback.get("init_args") or {}).get("monitor")
            if name in _LIGHTNINGS_OWN and not monitored:
                continue
        kind = getattr(importlib.import_module(module), name)
        if not (issubclass(kind, MeasureCallback) or hasattr(kind, "next_stop")):
            return f"its callback {name} knows nothing of replicas: it has no next_stop(step)"
    return None


def _decides(path: str) -> bool:
    return not packable(path) and (path.startswith(_DECIDING) or path in _DECIDING_DATA)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _size(number: float) -> str:
    return f"{number / 1e9:.2g} GB" if number >= 1e9 else f"{max(number / 1e6, 0.1):.2g} MB"
