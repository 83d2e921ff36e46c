"""The capacity of a job, and the reasons why some cells cannot be replicas."""

from dataclasses import replace

import pytest

from lnsgd.sweep.capacity import PROCESS_BYTES, CapacityEstimator
from lnsgd.sweep.cells import Cell, leaves, resolve_cells
from lnsgd.sweep.config_reader import ConfigReader
from lnsgd.sweep.executors.base import Resources
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.packing import Capacity
from tests.small_config import instance
from tests.sweep.small_sweeps import ORDINARY, write_sweep

SEED, STEPS = "seed_everything", "trainer.max_steps"
WIDTHS = "model.init_args.net.init_args.widths"


def resources(memory: float = 8e9) -> Resources:
    return Resources(at_once=2, memory=memory, gpu=False)


_readers: dict[str, ConfigReader] = {}


def estimate(tmp_path, options=None, callbacks=(), memory=8e9, most=100) -> Capacity:
    """Estimate the capacity for one cell; each config is resolved once for all tests, because that takes long."""
    if (key := repr(callbacks)) not in _readers:
        _readers[key] = ConfigReader(read_sweep(write_sweep(tmp_path, callbacks=callbacks)))
    config = _readers[key](options or {})
    return CapacityEstimator(leaves(config), lambda _: config, resources(memory), most)(Cell("c", options or {}, {}))


def test_one_hidden_layer_uses_the_kernel_engine(tmp_path):
    capacity = estimate(tmp_path)
    assert (capacity.max_replicas, capacity.replicates_single) == (100, True)
    assert "engine kernel (one hidden layer on the CPU)" in capacity.reason


def test_other_networks_use_the_general_engine(tmp_path):
    capacity = estimate(tmp_path, {"model.net.widths": [784, 6, 6, 10]})
    assert (capacity.max_replicas, capacity.replicates_single) == (100, False)
    assert "engine general (the kernel cannot: it has 2 hidden layers" in capacity.reason


RESNET = {"model.net": "lnsgd.models.ResNet20", "model.net.channels": 1, "model.net.width": 2}

NOT_REPLICABLE = {
    "batch-normalization": (RESNET, "BatchNorm2d"),
    "compiled": ({"model.compile_mode": "default"}, "compile_mode = default"),
    "another-optimizer": ({"model.optimizer": "torch.optim.Adam"}, "Adam"),
    "precision": ({"trainer.precision": "bf16-mixed"}, "trainer.precision = bf16-mixed"),
    "clipped": ({"trainer.gradient_clip_val": 1.0}, "trainer.gradient_clip_val = 1.0"),
    "accumulated": ({"trainer.accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches = 2"),
    "devices": ({"trainer.devices": 2}, "trainer.devices = 2"),
    "part-of-an-epoch": ({"trainer.limit_train_batches": 0.5}, "trainer.limit_train_batches = 0.5"),
    "augmented": ({"data": "lnsgd.data.CIFAR10", "model.net.widths": [3072, 5, 10]}, "augments"),
    "cannot-be-built": ({"model.net.widths": [784]}, "widths = [784]"),
}


@pytest.mark.parametrize(("options", "reason"), NOT_REPLICABLE.values(), ids=NOT_REPLICABLE)
def test_cells_that_cannot_be_replicas(options, reason, tmp_path):
    capacity = estimate(tmp_path, options)
    assert (capacity.max_replicas, capacity.replicates_single) == (1, False)
    assert reason in capacity.reason
    assert "\n" not in capacity.reason


CALLBACKS = {
    "foreign": (ORDINARY, "Fault does not support replicas"),
    "monitoring": (instance("pytorch_lightning.callbacks.EarlyStopping", monitor="x"), "Early"),
    "best-checkpoint": (
        instance("pytorch_lightning.callbacks.ModelCheckpoint", monitor="val/loss"),
        "ModelCheckpoint",
    ),
}


@pytest.mark.parametrize(("callback", "reason"), CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_that_do_not_support_replicas(callback, reason, tmp_path):
    capacity = estimate(tmp_path, callbacks=[callback])
    assert (capacity.max_replicas, capacity.replicates_single) == (1, False)
    assert reason in capacity.reason


REPLICABLE = {
    "checkpoints": {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint"},
    "next-stop": instance("tests.sweep.small_sweeps.ReplicaFault", kind="none"),
    "own": {"class_path": "lnsgd.callbacks.ActiveNeurons"},
}


@pytest.mark.parametrize("callback", REPLICABLE.values(), ids=REPLICABLE)
def test_callbacks_that_support_replicas(callback, tmp_path):
    assert estimate(tmp_path, callbacks=[callback]).max_replicas == 100


# Weights and biases of 784-6-10, counted by hand. An example has 784 inputs, and 6 and 10 outputs twice; a validation
# batch of 2000 has 6 and 10 outputs twice.
PARAMETERS, NUMBERS, BATCH, VALIDATED = 784 * 6 + 6 + 6 * 10 + 10, 784 + 2 * (6 + 10), 20, 2000 * 2 * (6 + 10)
# With the kernel engine: bytes, network inputs, and nonzero inputs with their indices.
IMAGES, DOUBLE_IMAGES = 60_000 * 784 * (1 + 4 + 8), 60_000 * 784 * (1 + 8 + 12)
HYPERCUBE = {"data": "lnsgd.data.Hypercube", "data.dimension": 30, "model.net.widths": [30, 6, 1]}
DRAWN = 120 * 30 * (1 + 4 + 8)


@pytest.mark.parametrize(
    ("options", "shared", "size"),
    [
        ({}, IMAGES, 4 * (6 * PARAMETERS + 2 * BATCH * NUMBERS + VALIDATED)),
        ({"trainer.precision": "64-true"}, DOUBLE_IMAGES, 8 * (6 * PARAMETERS + 2 * BATCH * NUMBERS + VALIDATED)),
        ({"model.optimizer.momentum": 0.9}, IMAGES, 4 * (8 * PARAMETERS + 2 * BATCH * NUMBERS + VALIDATED)),
        ({"data.batch_size": 40}, IMAGES, 4 * (6 * PARAMETERS + 2 * 40 * NUMBERS + VALIDATED)),
        ({"data.batch_size": None}, IMAGES, 4 * (6 * PARAMETERS + 2 * 100 * NUMBERS + VALIDATED)),
        ({"data.eval_batch_size": 1000}, IMAGES, 4 * (6 * PARAMETERS + 2 * BATCH * NUMBERS + VALIDATED // 2)),
        (HYPERCUBE, 0, DRAWN + 4 * (6 * (30 * 6 + 6 + 6 + 1) + 2 * BATCH * (30 + 2 * 7) + 2000 * 2 * 7)),
    ],
    ids=["plain", "double", "momentum", "batch", "whole-set", "validation", "drawn"],
)
def test_memory_limits_replicas_by_the_documented_formula(options, shared, size, tmp_path):
    exact = estimate(tmp_path, options, memory=PROCESS_BYTES + shared + 7 * size)
    assert exact.max_replicas == 7
    assert "memory holds 7" in exact.reason
    assert estimate(tmp_path, options, memory=PROCESS_BYTES + shared + 7 * size - 1).max_replicas == 6


def test_little_memory_still_holds_one_replica(tmp_path):
    assert estimate(tmp_path, memory=1.0).max_replicas == 1


def test_each_structure_is_built_once(tmp_path, monkeypatch):
    read = ConfigReader(read_sweep(write_sweep(tmp_path)))
    first = leaves(read({}))
    built = []
    build = CapacityEstimator._build
    monkeypatch.setattr(
        CapacityEstimator, "_build", lambda self, config: built.append(leaves(config)) or build(self, config)
    )
    estimator = CapacityEstimator(first, read, resources(), 10)
    changes = [{SEED: seed, STEPS: steps} for seed in range(5) for steps in (20, 30)]
    assert {estimator(Cell("c", {}, change)) for change in [{}, *changes]} == {estimator(Cell("c", {}, {}))}
    assert len(built) == 1
    wide = {"model.net.widths": [784, 9, 10]}
    estimator(Cell("c", wide, {WIDTHS: [784, 9, 10]}))
    assert estimator(Cell("c", wide, {WIDTHS: [784, 9, 10], STEPS: 30})).replicates_single
    assert [config[WIDTHS] for config in built] == [[784, 6, 10], [784, 9, 10]]


def test_configs_are_derived_from_one_that_was_read(tmp_path, monkeypatch):
    """They equal the configs that would be read. A config with another class, or a null value, is read."""
    sweep = read_sweep(write_sweep(tmp_path))
    read, calls, built = ConfigReader(sweep), [], []

    def counted(options):
        calls.append(options)
        return read(options)

    cells = resolve_cells(
        replace(
            sweep,
            axes=(
                ({"model.loss": "LogisticLoss"}, {"model.loss": "HingeLoss"}),
                ({"model.noise_steps": None}, {"model.noise_steps": 5}),
                ({"model.net.widths": [784, 6, 10]}, {"model.net.widths": [784, 5, 5, 10]}),
            ),
        ),
        read,
    )
    build = CapacityEstimator._build
    monkeypatch.setattr(CapacityEstimator, "_build", lambda self, config: built.append(config) or build(self, config))
    estimator = CapacityEstimator(cells.first, counted, resources(), 10)
    for cell in cells.cells:
        estimator(cell)
    assert len(calls) == 4
    assert [leaves(config) for config in built] == [leaves(read(cell.options)) for cell in cells.cells]
