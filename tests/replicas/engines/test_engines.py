"""Both engines on batches of a `BatchStream`: they agree with each other, with NumPy, and with each replica alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, StepLR

from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.models.mlp import ActivationName
from lnsgd.replicas import (
    Batches,
    BatchStream,
    Engine,
    LearningRate,
    ReplicaSettings,
    StackedNetwork,
    StepRule,
    TrainingSet,
    TrainingState,
)
from lnsgd.replicas.engines.general import GeneralEngine
from lnsgd.replicas.engines.mlp_kernel import MLPKernel
from tests.reference.sgd import goals, sgd
from tests.tolerances import EXACT

STEPS = 1000
EXAMPLES, INPUTS, CLASSES = 20, 4, 3
LR = 0.01

LOSSES: dict[str, Loss] = {
    "logistic": LogisticLoss(),
    "hinge": HingeLoss(),
    "softmax": CrossEntropy(),
    "squared-mean": SquaredLoss(),
    "squared-sum": SquaredLoss("sum"),
}
# Noises of one kind of targets run side by side, as replicas.
NOISES: dict[str, tuple[LabelNoise, ...]] = {
    "hard": (NoNoise(), UniformNoise(0.3)),
    "soft": (LabelSmoothing(0.0), LabelSmoothing(0.3)),
    "real": (GaussianNoise(0.0), GaussianNoise(0.3)),
}
SCHEDULES: dict[str, partial[LRScheduler] | None] = {
    "constant": None,
    "step": partial(MultiStepLR, milestones=[40, 70, 90], gamma=0.1),
    "halving": partial(StepLR, step_size=30, gamma=0.5),
}
OFFERED = [(loss, kind) for loss in LOSSES for kind in NOISES if kind in LOSSES[loss].accepts]
ENGINES: dict[str, type[Engine]] = {"kernel": MLPKernel, "general": partial(GeneralEngine, compile=False)}


@pytest.fixture(autouse=True)
def float64() -> Iterable[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learning_rate(schedule: str) -> LearningRate:
    make = SCHEDULES[schedule]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    return LearningRate(make(optimizer) if make else None)


@dataclass(frozen=True)
class Case:
    """Replicas with every noise of a kind (each its own seed and size of training set) and every schedule."""

    loss: str = "logistic"
    kind: str = "hard"
    momentum: float = 0.0
    activation: ActivationName = "tanh"
    outputs: int = CLASSES
    batch: int = 2
    order: str = "shuffle"
    steps: int = STEPS
    skip: bool = False
    train_layers: tuple[int, ...] = (0, 1)

    @cached_property
    def inputs(self) -> Tensor:
        return torch.randn(EXAMPLES, INPUTS, generator=torch.Generator().manual_seed(1))

    def data(self, seed: int) -> TrainingSet:
        """Nine or seven examples: the last batch of an epoch is smaller."""
        generator = torch.Generator().manual_seed(seed)
        n = 9 - 2 * seed
        labels = torch.randint(max(2, self.outputs), (n,), generator=generator)
        if self.outputs == 1 and self.kind == "real":
            labels = torch.randn(n, 1, generator=generator)
        return TrainingSet(torch.randperm(EXAMPLES, generator=generator)[:n], labels)

    @cached_property
    def settings(self) -> list[ReplicaSettings]:
        """Of the replicas that have one schedule."""
        return [ReplicaSettings(seed, noise, LR) for seed, noise in enumerate(NOISES[self.kind])]

    @cached_property
    def seeds(self) -> list[int]:
        return [settings.seed for settings in self.settings] * len(SCHEDULES)

    @cached_property
    def batches(self) -> Batches:
        parts = [self.stream(schedule).draw(0, self.steps) for schedule in SCHEDULES]
        return Batches(
            0, *(torch.cat([getattr(c, name) for c in parts]) for name in ("rows", "sizes", "targets", "lrs"))
        )

    def stream(self, schedule: str) -> BatchStream:
        data = [self.data(settings.seed) for settings in self.settings]
        classes = None if data[0].labels.is_floating_point() else max(2, self.outputs)
        return BatchStream(data, self.settings, self.order, self.batch, classes, learning_rate(schedule))

    def stack(self, replicas: slice = slice(None)) -> StackedNetwork:
        widths = [INPUTS, 6, self.outputs]
        net = MLP(widths, activation=self.activation, skip=self.skip, train_layers=self.train_layers)
        return StackedNetwork(net, self.seeds[replicas])

    def run(self, engine: str, replicas: slice = slice(None)) -> tuple[dict[str, nn.Parameter], Tensor]:
        """Final weights and sums of losses of some of the replicas."""
        stack = self.stack(replicas)
        parameters = stack.stacked_parameters()
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        velocity = {name: torch.zeros_like(p) for name, p in trained.items()} if self.momentum else {}
        state = TrainingState(parameters, velocity, torch.full((stack.num_replicas,), -1))
        rule = StepRule(stack.structure, LOSSES[self.loss], NOISES[self.kind][0].targets, self.momentum)
        batches = self.batches
        own = Batches(
            0, batches.rows[replicas], batches.sizes[replicas], batches.targets[replicas], batches.lrs[replicas]
        )
        return parameters, ENGINES[engine](rule, state, self.inputs).run(own)

    @property
    def names(self) -> list[str]:
        """Tensors in the order of the reference."""
        layers = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
        return [*layers, "skip.weight"] if self.skip else layers

    def reference(self, replica: int) -> tuple[list[np.ndarray], float]:
        start = self.stack().stacked_parameters()
        weights = [start[name][replica].detach().numpy().copy() for name in self.names]
        rows, sizes, targets, lrs = (
            getattr(self.batches, name)[replica].numpy() for name in ("rows", "sizes", "targets", "lrs")
        )
        wanted = goals(self.loss, targets, self.outputs)
        inputs = self.inputs.numpy()
        batches = ((inputs[r[:size]], t[:size], lr) for r, size, t, lr in zip(rows, sizes, wanted, lrs))
        frozen = [name for name, parameter in start.items() if not parameter.requires_grad]
        return weights, sgd(weights, batches, self.activation, self.loss, self.momentum, self.places(frozen))

    def places(self, names: list[str]) -> list[int]:
        return [self.names.index(name) for name in names]

    def check(self) -> None:
        """Both engines against NumPy, replica by replica."""
        runs = {engine: self.run(engine) for engine in ENGINES}
        for replica in range(len(self.seeds)):
            weights, total = self.reference(replica)
            for parameters, losses in runs.values():
                assert losses[replica].item() == pytest.approx(total, rel=1e-10)
                assert parameters.keys() == set(self.names)
                for name, expected in zip(self.names, weights, strict=True):
                    np.testing.assert_allclose(parameters[name][replica].detach().numpy(), expected, **EXACT)


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["plain", "momentum"])
@pytest.mark.parametrize(("loss", "kind"), OFFERED)
def test_a_thousand_steps_agree_with_numpy(loss: str, kind: str, momentum: float) -> None:
    Case(loss, kind, momentum).check()


# Another network, batch and order each; fewer steps.
OTHERS = {
    "relu": Case(activation="relu", steps=100),
    "logistic": Case(activation="logistic", steps=100),
    "cubic": Case("squared-mean", "real", activation="cubic", steps=100),
    "one-output": Case(outputs=1, momentum=0.9, steps=100),
    "one-real-output": Case("squared-sum", "real", outputs=1, steps=100),
    "one-squared-output": Case("squared-mean", "soft", outputs=1, steps=100),
    "one-hinge-output": Case("hinge", outputs=1, steps=100),
    "batch-one": Case(batch=1, steps=100),
    "batch-one-replacement": Case("softmax", batch=1, order="replacement", steps=100),
    "full-batch": Case("squared-mean", momentum=0.9, batch=EXAMPLES, steps=100),
    "skip": Case(skip=True, steps=100),
    "skip-relu-real": Case("squared-sum", "real", activation="relu", outputs=1, batch=1, skip=True, steps=100),
    "skip-momentum": Case("softmax", "soft", momentum=0.9, skip=True, steps=100),
    "skip-frozen": Case(momentum=0.9, skip=True, train_layers=(0,), steps=100),
    "skip-output-layer": Case("squared-mean", "real", skip=True, train_layers=(1,), steps=100),
    "sequential": Case("softmax", "soft", batch=3, order="sequential", steps=100),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_other_networks_and_batches_agree_with_numpy(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("loss", "kind"), [("logistic", "hard"), ("softmax", "soft"), ("squared-sum", "real")])
def test_a_replica_equals_its_run_alone(loss: str, kind: str, engine: str) -> None:
    case = Case(loss, kind, 0.9, steps=100)
    together, losses = case.run(engine)
    for replica in (0, 3, 5):
        alone, loss_alone = case.run(engine, slice(replica, replica + 1))
        tolerance = {"rtol": 0, "atol": 0} if engine == "kernel" else EXACT  # products of stacks round by their size
        torch.testing.assert_close(losses[replica], loss_alone[0], **tolerance)
        for name, weight in alone.items():
            torch.testing.assert_close(together[name][replica], weight[0], **tolerance)


def test_the_schedules_differ_within_the_run() -> None:
    """Otherwise the comparisons above would compare less than they say."""
    lrs = Case().batches.lrs
    constant, step, halving = lrs[0], lrs[2], lrs[4]
    assert set(constant.tolist()) == {LR}
    assert len(step.unique()) == 4
    assert len(halving.unique()) > 5
