"""Whether cells can be replicas of one run, and how many fit into memory."""

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentParser
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

# What a process takes beside its replicas: PyTorch, Lightning, the data set, one network that is measured.
PROCESS_BYTES = 1.5e9

# Examples of a batch that is the whole training set, where the config does not say how many it has.
_WHOLE_SET = 60_000

# Positions at which a convolution is assumed to be evaluated: those of a CIFAR-10 image.
_POSITIONS = 32 * 32

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

    A job of R replicas is estimated to take ``PROCESS_BYTES + R · 4 · (5P + mP + 2BA)`` bytes (8 in place of 4 in
    double precision): P parameters as weights, initial weights, gradient, update, and in a checkpoint; with momentum
    (m = 1) the velocity; A numbers for each of the B examples of a batch, twice for the backward pass: the inputs of
    the first layer, and the outputs of all layers with weights, before and after their activation. A convolution
    is assumed to have 32 · 32 positions.

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

    def __call__(self, cell: Cell) -> Verdict:
        """Whether a cell and those that differ from it only in what replicas may differ in can be one run."""
        changes = ((path, _text(value)) for path, value in cell.changes.items() if _decides(path))
        structure = frozenset(change for change in changes if self._base.get(change[0]) != change[1])
        if structure not in self._known:
            self._known[structure] = self._judge(self._read(cell.options))
        return self._known[structure]

    def _judge(self, config: Mapping[str, Any]) -> Verdict:
        why_not = _trainer_refuses(config["trainer"]) or _callbacks_refuse(config["trainer"].get("callbacks"))
        if why_not:
            return Verdict(1, why_not)
        # What cannot be built, such as a network of no layers, fails as a run of its own, with a row that says so.
        try:
            built = _build(config)
            assert isinstance(built.model, LightningModule)
            ReplicatedData(built.data, [Replica(0)])
            replicated = ReplicatedModule(built.model, [Replica(0)])
            cell = replicated.cell
            momentum = cell.make_optimizer(list(cell.net.parameters())).defaults["momentum"]
            recipe = Recipe(cell.net, cell.loss, cell.label_noise.targets, momentum)
            engine, why = choose_engine("auto", recipe, self._device(config["trainer"]))
        except ValueError as error:
            return Verdict(1, " ".join(str(error).split()))
        double = str(config["trainer"].get("precision")).startswith("64")
        each = replica_bytes(cell, built.data, bool(momentum), 8 if double else 4)
        fit = max(1, int((self._resources.memory - PROCESS_BYTES) // each))
        reason = f"engine {engine.name} ({why}), {_size(each)} each"
        if fit < self._most:
            reason += f", memory holds {fit}"
        # An ordinary run takes its steps one by one, the kernel many in one call.
        return Verdict(min(fit, self._most), reason, alone=engine.name == "kernel")

    def _device(self, trainer: Mapping[str, Any]) -> torch.device:
        accelerator = trainer.get("accelerator")
        on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and self._resources.gpu)
        return torch.device("cuda" if on_gpu else "cpu")


def replica_bytes(module: SupervisedModule, data: TensorData, momentum: bool, number: int) -> float:
    """Bytes of one replica by the formula of `Judge`, for numbers of so many bytes."""
    parameters = sum(p.numel() for p in module.net.parameters())
    layers = [layer for layer in module.net.modules() if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))]
    outputs = sum(2 * _outputs(layer) for layer in layers)
    inputs = layers[0].in_features if layers and isinstance(layers[0], nn.Linear) else 3 * _POSITIONS
    batch = data.batch_size or data.subset or getattr(data, "train_size", None) or _WHOLE_SET
    return number * ((5 + momentum) * parameters + 2 * batch * (inputs + outputs))


def _outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer.out_channels * _POSITIONS


def _build(config: Mapping[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    parser.add_subclass_arguments(LightningDataModule, "data")
    return parser.instantiate(parser.parse_object({"model": config["model"], "data": config["data"]}))


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
