"""Which cells can be replicas, how many of them, and why not."""

from dataclasses import replace

import pytest

from lnsgd.sweep.cells import Cell, leaves, resolved_cells
from lnsgd.sweep.executor import Resources
from lnsgd.sweep.grid import read_sweep
from lnsgd.sweep.judge import PROCESS_BYTES, Judge
from lnsgd.sweep.packing import Verdict
from lnsgd.sweep.resolve import ConfigReader
from tests.sweep.small_sweeps import ORDINARY, write_sweep

SEED, STEPS = "seed_everything", "trainer.max_steps"
WIDTHS = "model.init_args.net.init_args.widths"


def resources(memory: float = 8e9) -> Resources:
    return Resources(at_once=2, memory=memory, gpu=False)


_readers: dict[str, ConfigReader] = {}


def judge(tmp_path, options=None, callbacks=(), memory=8e9, most=100) -> Verdict:
    """That on a cell; each config is resolved once, and read by one reader for all tests, which takes the time."""
    if (key := repr(callbacks)) not in _readers:
        _readers[key] = ConfigReader(read_sweep(write_sweep(tmp_path, callbacks=callbacks)))
    config = _readers[key](options or {})
    return Judge(leaves(config), lambda _: config, resources(memory), most)(Cell("c", options or {}, {}))


def test_one_hidden_layer_is_for_the_kernel(tmp_path):
    verdict = judge(tmp_path)
    assert (verdict.most, verdict.alone) == (100, True)
    assert "engine kernel (one hidden layer on the CPU)" in verdict.reason


def test_other_networks_are_for_the_general_engine(tmp_path):
    verdict = judge(tmp_path, {"model.net.widths": [784, 6, 6, 10]})
    assert (verdict.most, verdict.alone) == (100, False)
    assert "engine general (the kernel cannot: it has 2 hidden layers" in verdict.reason


RESNET = {"model.net": "lnsgd.models.ResNet20", "model.net.channels": 1, "model.net.width": 2}

NO_REPLICAS = {
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


@pytest.mark.parametrize(("options", "says"), NO_REPLICAS.values(), ids=NO_REPLICAS)
def test_what_cannot_be_replicas(options, says, tmp_path):
    verdict = judge(tmp_path, options)
    assert (verdict.most, verdict.alone) == (1, False)
    assert says in verdict.reason
    assert "\n" not in verdict.reason


CALLBACKS = {
    "foreign": (ORDINARY, "Befall knows nothing of replicas"),
    "monitoring": ({"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": "x"}}, "Early"),
    "best-checkpoint": (
        {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"monitor": "val/loss"}},
        "ModelCheckpoint",
    ),
}


@pytest.mark.parametrize(("callback", "says"), CALLBACKS.values(), ids=CALLBACKS)
def test_callbacks_that_know_nothing_of_replicas(callback, says, tmp_path):
    verdict = judge(tmp_path, callbacks=[callback])
    assert (verdict.most, verdict.alone) == (1, False)
    assert says in verdict.reason


REPLICABLE = {
    "checkpoints": {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint"},
    "next-stop": {"class_path": "tests.sweep.small_sweeps.BefallReplicas", "init_args": {"how": "nothing"}},
    "own": {"class_path": "lnsgd.callbacks.ActiveNeurons"},
}


@pytest.mark.parametrize("callback", REPLICABLE.values(), ids=REPLICABLE)
def test_callbacks_that_replicas_can_have(callback, tmp_path):
    assert judge(tmp_path, callbacks=[callback]).most == 100


# Weights and biases of 784-6-10, by hand; numbers of an example: 784 in, and twice 6 and 10 out; of a validation batch
# of 2000: twice 6 and 10 out.
PARAMETERS, NUMBERS, BATCH, VALIDATED = 784 * 6 + 6 + 6 * 10 + 10, 784 + 2 * (6 + 10), 20, 2000 * 2 * (6 + 10)
# Of the kernel: bytes, network inputs, and those that are not zero with their places.
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
def test_memory_bounds_replicas_by_the_stated_formula(options, shared, size, tmp_path):
    exactly = judge(tmp_path, options, memory=PROCESS_BYTES + shared + 7 * size)
    assert exactly.most == 7
    assert "memory holds 7" in exactly.reason
    assert judge(tmp_path, options, memory=PROCESS_BYTES + shared + 7 * size - 1).most == 6


def test_little_memory_still_holds_one(tmp_path):
    assert judge(tmp_path, memory=1.0).most == 1


def test_structures_are_judged_once(tmp_path, monkeypatch):
    read = ConfigReader(read_sweep(write_sweep(tmp_path)))
    first = leaves(read({}))
    built = []
    build = Judge._build
    monkeypatch.setattr(Judge, "_build", lambda self, config: built.append(leaves(config)) or build(self, config))
    judged = Judge(first, read, resources(), 10)
    changes = [{SEED: seed, STEPS: steps} for seed in range(5) for steps in (20, 30)]
    assert {judged(Cell("c", {}, change)) for change in [{}, *changes]} == {judged(Cell("c", {}, {}))}
    assert len(built) == 1
    wide = {"model.net.widths": [784, 9, 10]}
    judged(Cell("c", wide, {WIDTHS: [784, 9, 10]}))
    assert judged(Cell("c", wide, {WIDTHS: [784, 9, 10], STEPS: 30})).alone
    assert [config[WIDTHS] for config in built] == [[784, 6, 10], [784, 9, 10]]


def test_configs_are_put_together_from_one_that_was_read(tmp_path, monkeypatch):
    """They are those that would be read; another class, or what may not be there, is read."""
    sweep = read_sweep(write_sweep(tmp_path))
    read, calls, built = ConfigReader(sweep), [], []

    def counted(options):
        calls.append(options)
        return read(options)

    cells = resolved_cells(
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
    build = Judge._build
    monkeypatch.setattr(Judge, "_build", lambda self, config: built.append(config) or build(self, config))
    judged = Judge(cells.first, counted, resources(), 10)
    for cell in cells.cells:
        judged(cell)
    assert len(calls) == 4
    assert [leaves(config) for config in built] == [leaves(read(cell.options)) for cell in cells.cells]
