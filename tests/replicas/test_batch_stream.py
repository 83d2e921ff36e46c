"""A replica gets the batches that its run alone would get."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR, StepLR

from lnsgd.data.loader import DeviceLoader
from lnsgd.data.tensors import LabelledTensors
from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.replicas import Batches, BatchStream, LearningRate, ReplicaSettings, TrainingSet
from lnsgd.streams import NoiseStream, Order
from tests.reference.streams import places, uniform_targets

POOL = 40
CLASSES = 5
SIZES = (10, 7, 10)  # examples of the replicas: their epochs end at different steps
LRS = (0.1, 0.3, 0.7)
STEPS = 53

HALVING = partial(StepLR, step_size=2, gamma=0.5)
NOISES: dict[str, LabelNoise] = {
    "none": NoNoise(),
    "uniform": UniformNoise(0.5),
    "smoothing": LabelSmoothing(0.5),
    "gaussian": GaussianNoise(0.5),
}


def data_of(replica: int, real: bool = False) -> TrainingSet:
    generator = torch.Generator().manual_seed(replica)
    n = SIZES[replica]
    rows = torch.randperm(POOL, generator=generator)[:n]
    labels = torch.randint(CLASSES, (n,), generator=generator)
    return TrainingSet(rows, torch.randn(n, 2, generator=generator) if real else labels)


def settings_of(replica: int, noise: LabelNoise, noise_steps: int | None = None) -> ReplicaSettings:
    return ReplicaSettings(seed=replica + 3, label_noise=noise, lr=LRS[replica], noise_steps=noise_steps)


def stream_of(
    noise: LabelNoise,
    order: Order = "shuffle",
    batch: int = 3,
    real: bool = False,
    schedule: Any = HALVING,
    noise_steps: int | None = None,
    **options,
) -> BatchStream:
    replicas = range(len(SIZES))
    made = schedule(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)) if schedule else None
    return BatchStream(
        [data_of(replica, real) for replica in replicas],
        [settings_of(replica, noise, noise_steps) for replica in replicas],
        order,
        batch,
        None if real else CLASSES,
        LearningRate(made),
        **options,
    )


def alone(
    replica: int, noise: LabelNoise, order: Order, batch: int, real: bool, schedule: Any, per_epoch: bool
) -> list[tuple[Tensor, Tensor, float]]:
    """Rows, targets and learning rate of each step, from the loader, the noise and the scheduler of a single run."""
    data, settings = data_of(replica, real), settings_of(replica, noise)
    # An input is its own row in the pool.
    tensors = LabelledTensors(torch.arange(POOL), data.labels, data.rows)
    loader = DeviceLoader(tensors, lambda rows: rows, batch, order, settings.seed)
    classes = None if real else CLASSES
    stream = NoiseStream(noise, settings.seed, tuple(data.labels.shape[1:]), classes)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.lr)
    scheduler = schedule(optimizer) if schedule else None
    steps: list[tuple[Tensor, Tensor, float]] = []
    seen = epoch = 0
    while len(steps) < STEPS:
        loader.set_epoch(epoch)
        for rows, labels, _ in loader:
            targets = noise.apply(labels, stream.take(seen, len(labels)), classes)
            seen += len(labels)
            steps.append((rows, targets, optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if scheduler and not per_epoch:
                scheduler.step()
        epoch += 1
        if scheduler and per_epoch:
            scheduler.step()
    return steps[:STEPS]


def assert_is(batches: Batches, replica: int, expected: list[tuple[Tensor, Tensor, float]]) -> None:
    assert batches.sizes[replica].tolist() == [len(rows) for rows, _, _ in expected]
    assert batches.lrs[replica].tolist() == [lr for _, _, lr in expected]
    for k, (rows, targets, _) in enumerate(expected):
        assert torch.equal(batches.rows[replica, k, : len(rows)], rows)
        assert torch.equal(batches.targets[replica, k, : len(rows)], targets)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("batch", [1, 3, 5, 8, 100], ids=["one", "three", "five", "eight", "full"])
@pytest.mark.parametrize("order", ["shuffle", "replacement", "sequential"])
def test_a_replica_gets_the_batches_of_its_run_alone(order: Order, batch: int, noise: str) -> None:
    batches = stream_of(NOISES[noise], order, batch).draw(0, STEPS)
    for replica in range(len(SIZES)):
        assert_is(batches, replica, alone(replica, NOISES[noise], order, batch, False, HALVING, True))


@pytest.mark.parametrize("noise", ["none", "gaussian"])
def test_real_targets(noise: str) -> None:
    batches = stream_of(NOISES[noise], real=True).draw(0, STEPS)
    assert batches.targets.shape == (3, STEPS, 3, 2)
    for replica in range(len(SIZES)):
        assert_is(batches, replica, alone(replica, NOISES[noise], "shuffle", 3, True, HALVING, True))


SCHEDULES = {
    "constant": None,
    "halving": HALVING,
    "milestones": partial(MultiStepLR, milestones=[0, 3, 3, 9], gamma=0.1),
}


@pytest.mark.parametrize("per_epoch", [True, False], ids=["per-epoch", "per-step"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_of_a_schedule(schedule: str, per_epoch: bool) -> None:
    """Each replica counts its own epochs."""
    batches = stream_of(NoNoise(), schedule=SCHEDULES[schedule], per_epoch=per_epoch).draw(0, STEPS)
    for replica in range(len(SIZES)):
        expected = alone(replica, NoNoise(), "shuffle", 3, False, SCHEDULES[schedule], per_epoch)
        assert batches.lrs[replica].tolist() == [lr for _, _, lr in expected]


CUTS = {
    "one-by-one": range(STEPS + 1),
    "sevens": [*range(0, STEPS, 7), STEPS],
    "uneven": [0, 1, 4, 5, 30, STEPS],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_batches_do_not_depend_on_calls(order: Order, noise: str, cuts: Any) -> None:
    whole = stream_of(NOISES[noise], order).draw(0, STEPS)
    stream = stream_of(NOISES[noise], order)
    parts = [stream.draw(first, stop - first) for first, stop in pairwise(cuts)]
    assert [part.first_step for part in parts] == list(cuts)[:-1]
    for name in ("rows", "sizes", "targets", "lrs"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], 1), getattr(whole, name)), name


def test_a_run_may_start_at_any_step() -> None:
    """A resumed run does."""
    whole = stream_of(UniformNoise(0.5)).draw(0, STEPS)
    late = stream_of(UniformNoise(0.5)).draw(20, STEPS - 20)
    for name in ("rows", "sizes", "targets", "lrs"):
        assert torch.equal(getattr(late, name), getattr(whole, name)[:, 20:]), name


@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_batches_far_into_the_run(order: Order) -> None:
    """Across the end of a block of the streams, 16384 examples."""
    first, steps, n = 1636, 5, SIZES[0]
    batches = stream_of(UniformNoise(0.5), order, batch=10).draw(first, steps)
    data = data_of(0)
    chosen = places(first * n, steps * n, n, order, seed=3) if order == "replacement" else None
    if chosen is None:
        chosen = torch.arange(steps * n) % n  # a full batch is not shuffled
    assert torch.equal(batches.rows[0].flatten(), data.rows[chosen])
    assert torch.equal(
        batches.targets[0].flatten(), uniform_targets(data.labels[chosen], 0.5, CLASSES, seed=3, start=first * n)
    )


@pytest.mark.parametrize("moving", [[0], [2], [0, 2], [0, 1, 2]], ids=str)
def test_nothing_is_drawn_for_frozen_replicas(moving: list[int]) -> None:
    """Frozen replicas may get any batches; the batches of the others do not depend on them."""
    whole, stream = stream_of(UniformNoise(0.5)), stream_of(UniformNoise(0.5))
    for first, steps in ((0, 8), (8, 13)):
        expected, found = whole.draw(first, steps), stream.draw(first, steps, moving)
        assert found.first_step == first
        for name in ("rows", "sizes", "targets", "lrs"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            assert torch.equal(ours[moving], theirs[moving]), name
    drawn = [examples if r in moving else 0 for r, examples in enumerate(whole.flips[:, 1].tolist())]
    assert stream.flips[:, 1].tolist() == drawn


def test_an_epoch_is_an_epoch_of_the_largest_training_set() -> None:
    assert stream_of(NoNoise(), batch=3).steps_per_epoch == 4
    assert stream_of(NoNoise(), batch=100).steps_per_epoch == 1
    assert stream_of(NoNoise(), batch=100).batch_size == 10


def test_flip_rates_count_since_the_last_call() -> None:
    stream = stream_of(UniformNoise(0.5))
    assert stream.flip_rates().isnan().all()
    for first, steps in ((0, 8), (8, 1), (9, 30)):
        batches = stream.draw(first, steps)
        expected = []
        for replica in range(len(SIZES)):
            clean = alone(replica, NoNoise(), "shuffle", 3, False, None, True)[first : first + steps]
            noisy = [batches.targets[replica, k, : len(t)] for k, (_, t, _) in enumerate(clean)]
            flips = torch.cat([targets != labels for targets, (_, labels, _) in zip(noisy, clean)])
            expected.append(flips.double().mean().item())
        assert stream.flip_rates().tolist() == expected


@pytest.mark.parametrize("noise", ["none", "smoothing", "gaussian"])
def test_flip_rates_without_flips(noise: str) -> None:
    stream = stream_of(NOISES[noise])
    stream.draw(0, 10)
    rates = stream.flip_rates()
    assert rates.tolist() == [0, 0, 0] if noise == "none" else rates.isnan().all()


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("noise_steps", [0, 1, 7, 20, STEPS])
@pytest.mark.parametrize("noise", ["uniform", "smoothing", "gaussian"])
def test_noise_ends_after_its_steps_for_any_calls(noise: str, noise_steps: int, cuts: Any) -> None:
    noisy, quiet = (stream_of(level).draw(0, STEPS).targets for level in (NOISES[noise], NOISES[noise].at_level(0.0)))
    expected = torch.cat([noisy[:, :noise_steps], quiet[:, noise_steps:]], 1)
    stream = stream_of(NOISES[noise], noise_steps=noise_steps)
    found = torch.cat([stream.draw(first, stop - first).targets for first, stop in pairwise(cuts)], 1)
    assert torch.equal(found, expected)


def test_steps_without_noise_count_as_not_flipped() -> None:
    always, stream = stream_of(UniformNoise(0.5), batch=1), stream_of(UniformNoise(0.5), batch=1, noise_steps=10)
    always.draw(0, 10)
    stream.draw(0, 20)
    assert stream.flip_rates().tolist() == [rate / 2 for rate in always.flip_rates().tolist()]
    stream.draw(20, 8)
    assert stream.flip_rates().tolist() == [0, 0, 0]
