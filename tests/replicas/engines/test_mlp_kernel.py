"""The MLP kernel against one plain PyTorch loop per replica."""

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lnsgd.label_noise import TargetKind
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.replicas.engines.base import Batches, StepRule, TrainingState
from lnsgd.replicas.engines.mlp_kernel import MLPKernel
from tests.tolerances import EXACT

# A few dozen steps: rounding only, nothing has grown yet.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}
SINGLE = {"rtol": 1e-4, "atol": 1e-5}

POOL = 12


@dataclass
class Case:
    """R replicas of a network with their data; everything is drawn from one seed."""

    widths: tuple[int, int, int] = (5, 7, 1)
    loss: Loss = field(default_factory=LogisticLoss)
    targets: TargetKind = "hard"
    batch: int = 1
    momentum: float = 0.0
    replicas: int = 3
    steps: int = 30
    dtype: torch.dtype = torch.float64
    lr: float = 0.05
    net: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.nets = [MLP(self.widths, **self.net).to(self.dtype) for _ in range(self.replicas)]
        # About a third of the inputs are zeros, and all of the first example.
        self.inputs = torch.randn(POOL, self.widths[0], dtype=self.dtype)
        self.inputs *= torch.rand(self.inputs.shape) > 1 / 3
        self.inputs[0] = 0
        shape = (self.replicas, self.steps, self.batch)
        rows = torch.randint(POOL, shape)
        sizes = torch.randint(1, self.batch + 1, shape[:2])
        if self.batch == POOL:
            rows, sizes = torch.arange(POOL).expand(shape), torch.full(shape[:2], POOL)
        lrs = self.lr * (1 + torch.rand(shape[:2], dtype=torch.float64))
        self.batches = Batches(0, rows, sizes, self.draw_targets(shape), lrs)

    def draw_targets(self, shape: tuple[int, ...]) -> Tensor:
        outputs = self.widths[-1]
        if self.targets == "real":
            return torch.randn(*shape, outputs, dtype=self.dtype)
        if self.targets == "soft":
            return torch.rand(*shape, max(2, outputs), dtype=self.dtype).softmax(-1)
        return torch.randint(max(2, outputs), shape)

    def engine(self) -> MLPKernel:
        names = dict(self.nets[0].named_parameters())
        parameters = {
            name: nn.Parameter(torch.stack([net.get_parameter(name).data for net in self.nets]), like.requires_grad)
            for name, like in names.items()
        }
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        velocity = {name: torch.zeros_like(p) for name, p in trained.items()} if self.momentum else {}
        state = TrainingState(parameters, velocity, torch.full((self.replicas,), -1))
        rule = StepRule(self.nets[0], self.loss, self.targets, self.momentum)
        return MLPKernel(rule, state, self.inputs)

    def reference(self) -> Tensor:
        """Trains ``nets`` one at a time; sums of losses."""
        batches, sums = self.batches, torch.zeros(self.replicas, dtype=torch.float64)
        for r, net in enumerate(self.nets):
            optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], momentum=self.momentum)
            for k in range(self.steps):
                size = batches.sizes[r, k]
                loss = self.loss(net(self.inputs[batches.rows[r, k, :size]]), batches.targets[r, k, :size]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.param_groups[0]["lr"] = float(batches.lrs[r, k])
                optimizer.step()
                sums[r] += loss.item()
        return sums

    def check(self, tolerance: dict[str, float]) -> MLPKernel:
        engine = self.engine()
        sums = engine.run(self.batches)
        torch.testing.assert_close(sums, self.reference(), **tolerance)
        for r, net in enumerate(self.nets):
            for name, expected in net.named_parameters():
                actual = engine.state.parameters[name][r]
                torch.testing.assert_close(actual, expected.data, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
        assert engine.state.frozen_at.tolist() == [-1] * self.replicas
        return engine


LOSSES = {
    "logistic-hard": (LogisticLoss(), "hard"),
    "logistic-soft": (LogisticLoss(), "soft"),
    "hinge": (HingeLoss(), "hard"),
    "perceptron": (HingeLoss(0.0), "hard"),
    "softmax-hard": (CrossEntropy(), "hard"),
    "softmax-soft": (CrossEntropy(), "soft"),
    "squared-mean-hard": (SquaredLoss(), "hard"),
    "squared-sum-soft": (SquaredLoss("sum"), "soft"),
    "squared-mean-real": (SquaredLoss(), "real"),
    "squared-sum-real": (SquaredLoss("sum"), "real"),
}
SOME = [(name, outputs) for name in LOSSES for outputs in (1, 3) if not (outputs == 1 and "softmax" in name)]
BATCHES = {"batch-one": 1, "batches-up-to-three": 3, "full-batch": POOL}
LAYERS = {"both-layers": None, "hidden-layer": [0], "output-layer": [1]}


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("loss", "outputs"), SOME, ids=[f"{name}-{outputs}" for name, outputs in SOME])
def test_losses_agree_with_autograd(loss: str, outputs: int, batch: int, momentum: float) -> None:
    function, targets = LOSSES[loss]
    Case((5, 7, outputs), function, targets, batch, momentum, steps=15).check(ROUNDING)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
@pytest.mark.parametrize("outputs", [1, 3], ids=["one-output", "three-outputs"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "cubic"])
def test_networks_agree_with_autograd(
    activation: str, outputs: int, momentum: float, layers: list[int] | None, bias: bool
) -> None:
    net = {"activation": activation, "bias": bias, "train_layers": layers, "nu": 0.3}
    Case((5, 7, outputs), batch=3, momentum=momentum, steps=15, net=net).check(ROUNDING)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
@pytest.mark.parametrize("outputs", [1, 3], ids=["one-output", "three-outputs"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_networks_with_a_skip_agree_with_autograd(
    bias: bool, outputs: int, momentum: float, layers: list[int] | None
) -> None:
    net = {"bias": bias, "train_layers": layers, "skip": True}
    case = Case((5, 7, outputs), SquaredLoss("sum"), "real", batch=3, momentum=momentum, net=net, lr=0.01)
    for one in case.nets:
        one.skip.weight.data.normal_()
    case.check(ROUNDING)


@pytest.mark.parametrize("inputs", [1, 2, 3, 4, 9])
def test_all_numbers_of_inputs_agree_with_autograd(inputs: int) -> None:
    """Inputs are taken four at a time forwards, two at a time backwards."""
    Case((inputs, 21, 2), batch=2, net={"activation": "tanh"}).check(ROUNDING)


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
def test_a_thousand_steps_agree_with_autograd(momentum: float) -> None:
    net = {"activation": "tanh"}
    Case((9, 20, 1), SquaredLoss(), "real", 2, momentum, 2, 1000, lr=0.002, net=net).check(EXACT)


def test_single_precision_agrees_with_autograd() -> None:
    Case((9, 40, 10), batch=3, dtype=torch.float32).check(SINGLE)


@pytest.mark.parametrize("live", [0, 3, 20, 200], ids=lambda live: f"{live}-live")
def test_silent_neurons_keep_their_weights(live: int) -> None:
    """Few live neurons are visited one by one, many in a dense loop."""
    case = Case((40, 200, 2), steps=5, lr=0.01)
    for net in case.nets:
        net.layers[0].bias.data[live:] = -1e3
        net.layers[0].bias.data[:live] = 1e3
    before = [net.layers[0].weight.data.clone() for net in case.nets]
    engine = case.check(EXACT)
    for r, weight in enumerate(before):
        changed = (engine.state.parameters["layers.0.weight"][r] != weight).any(1)
        assert changed.tolist() == [j < live for j in range(200)]


@pytest.mark.parametrize("z", [-1e4, -800.0, -30.0, -1.0, -1e-9, 0.0, 1e-9, 0.3, 1.0, 30.0, 800.0, 1e4])
@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_activations_are_as_exact_as_their_type(activation: str, z: float, dtype: torch.dtype) -> None:
    """A relative error of a few roundings, also where tanh is about z and where the logistic is about exp(z)."""
    case = Case((1, 1, 1), SquaredLoss(), "real", steps=1, dtype=dtype, net={"activation": activation})
    case.batches.targets.zero_()
    for net in case.nets:
        net.layers[0].bias.data.fill_(z)
        net.layers[1].weight.data.fill_(1)
        net.layers[1].bias.data.zero_()
    case.inputs.zero_()
    expected = getattr(torch, {"logistic": "sigmoid"}.get(activation, activation))(
        torch.tensor(z, dtype=dtype).double()
    )
    outputs = case.engine().run(case.batches).sqrt()
    torch.testing.assert_close(outputs, expected.abs().expand(3), rtol=4 * torch.finfo(dtype).eps, atol=1e-300)


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
@pytest.mark.parametrize("loss", ["logistic-hard", "softmax-hard", "hinge"])
@pytest.mark.parametrize("targets", [0, 1], ids=["class-0", "class-1"])
def test_large_outputs_have_the_right_loss_and_gradient(loss: str, targets: int, sign: int) -> None:
    case = Case((5, 7, 2), *LOSSES[loss], steps=1, dtype=torch.float32)
    case.batches.targets.fill_(targets)
    for net in case.nets:
        net.layers[1].bias.data[:] = torch.tensor([sign * 1e4, -sign * 1e4])
    engine = case.check({"rtol": 1e-6, "atol": 1e-6})
    assert all(p.isfinite().all() for p in engine.state.parameters.values())


def tensors(engine: MLPKernel, kept: list[int]) -> list[Tensor]:
    state = engine.state
    return [t.detach()[kept] for t in (*state.parameters.values(), *state.velocity.values(), state.frozen_at)]


def equal(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def part(batches: Batches, start: int, stop: int) -> Batches:
    cut = {name: getattr(batches, name)[:, start:stop] for name in ("rows", "sizes", "targets", "lrs")}
    return Batches(start, **cut)


def step_of_divergence(case: Case, r: int) -> int:
    """Return the steps that a plain loop takes until an output on the next batch is not finite."""
    net, batches = case.nets[r], case.batches
    for k in range(case.steps):
        size = batches.sizes[r, k]
        outputs = net(case.inputs[batches.rows[r, k, :size]])
        if not outputs.isfinite().all():
            return k
        net.zero_grad()
        case.loss(outputs, batches.targets[r, k, :size]).mean().backward()
        for parameter in net.parameters():
            parameter.data -= float(batches.lrs[r, k]) * parameter.grad
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "cubic"])
def test_a_large_learning_rate_freezes_at_the_step_of_divergence(activation: str) -> None:
    case = Case((5, 7, 3), SquaredLoss(), "real", 2, steps=100, lr=0.002, net={"activation": activation})
    undisturbed = case.engine()
    undisturbed.run(case.batches)
    case.batches.lrs[1, 4:] = 1e6
    engine = case.engine()
    losses = engine.run(case.batches)
    assert engine.state.frozen_at.tolist() == [-1, step_of_divergence(case, 1), -1]
    assert losses[[0, 2]].isfinite().all()
    assert equal(tensors(engine, [0, 2]), tensors(undisturbed, [0, 2]))


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "cubic"])
@pytest.mark.parametrize("tensor", ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"])
def test_a_nan_freezes_its_replica(tensor: str, activation: str, momentum: float) -> None:
    """In whichever tensor it is; later calls leave the replica alone as well."""
    case = Case((5, 7, 3), batch=POOL, momentum=momentum, steps=4, net={"activation": activation})
    engine = case.engine()
    engine.state.parameters[tensor].data[1, 0] = torch.nan
    before = [t.nan_to_num() for t in tensors(engine, [1])[:-1]]
    for k in range(4):
        assert engine.run(part(case.batches, k, k + 1)).isfinite().all()
    assert engine.state.frozen_at.tolist() == [-1, 0, -1]
    assert equal([t.nan_to_num() for t in tensors(engine, [1])[:-1]], before)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["sgd", "momentum"])
def test_results_do_not_depend_on_calls_and_threads(
    batch: int, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case((5, 7, 3), batch=batch, momentum=momentum, replicas=11, steps=20)
    at_once, in_parts, in_threads = case.engine(), case.engine(), case.engine()
    losses = at_once.run(case.batches)
    for start, stop in ((0, 1), (1, 6), (6, 20)):
        in_parts.run(part(case.batches, start, stop))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(in_threads.run(case.batches), losses)
    everything = list(range(11))
    assert equal(tensors(in_parts, everything), tensors(at_once, everything))
    assert equal(tensors(in_threads, everything), tensors(at_once, everything))


def test_tensors_keep_identity_shape_and_numbers() -> None:
    case = Case((5, 7, 3), momentum=0.9)
    names = dict(case.nets[0].named_parameters())
    stacked = {name: torch.stack([net.get_parameter(name).data for net in case.nets]) for name in names}
    parameters = {name: nn.Parameter(value.clone()) for name, value in stacked.items()}
    velocity = {name: torch.rand_like(value) for name, value in stacked.items()}
    drawn = {name: value.clone() for name, value in velocity.items()}
    held = [*parameters.values(), *velocity.values()]
    state = TrainingState(parameters, velocity, torch.full((3,), -1))
    engine = MLPKernel(StepRule(case.nets[0], case.loss, "hard", 0.9), state, case.inputs)
    assert equal([*parameters.values(), *velocity.values()], [*stacked.values(), *drawn.values()])
    engine.run(case.batches)
    assert all(one is other for one, other in zip(held, [*parameters.values(), *velocity.values()], strict=True))
    assert not any(torch.equal(parameters[name], stacked[name]) for name in names)
    # New numbers copied in, as from a checkpoint, are what the next batches starts from.
    for name in names:
        parameters[name].data.copy_(stacked[name])
        velocity[name].zero_()
    engine.run(case.batches)
    assert equal(tensors(engine, [0, 1, 2]), tensors(case.check(ROUNDING), [0, 1, 2]))


class OwnForward(MLP):
    """Computes something else than the kernel."""


class OwnLoss(LogisticLoss):
    """Computes something else than the kernel."""


def with_gelu() -> MLP:
    net = MLP([2, 3, 1])
    net.activations[0] = nn.GELU()
    return net


ONE = MLP([2, 3, 1])
CPU = torch.device("cpu")
REFUSED: dict[str, tuple[nn.Module, Loss, torch.device, str]] = {
    "two-hidden": (MLP([2, 3, 3, 1]), LogisticLoss(), CPU, "it has 2 hidden layers, the kernel runs one"),
    "linear": (MLP([2, 1]), LogisticLoss(), CPU, "it has 0 hidden layers, the kernel runs one"),
    "activation": (with_gelu(), LogisticLoss(), CPU, "its activation GELU is not one of relu, tanh, logistic, cubic"),
    "subclass": (OwnForward([2, 3, 1]), LogisticLoss(), CPU, "it is a OwnForward, this kernel runs MLP"),
    "module": (nn.Linear(2, 1), LogisticLoss(), CPU, "it is a Linear, this kernel runs MLP"),
    "half": (MLP([2, 3, 1]).half(), LogisticLoss(), CPU, "its weights are torch.float16, the kernel runs float32"),
    "loss": (
        ONE,
        OwnLoss(),
        CPU,
        "its loss is OwnLoss, this kernel runs LogisticLoss or HingeLoss or CrossEntropy or SquaredLoss",
    ),
    "device": (ONE, LogisticLoss(), torch.device("cuda"), "device cuda: the kernel runs on the CPU"),
}


@pytest.mark.parametrize(("net", "loss", "device", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_part_is_named(net: nn.Module, loss: Loss, device: torch.device, reason: str) -> None:
    said = MLPKernel.unsupported(StepRule(net, loss, "hard"), device)
    assert said is not None
    assert said.startswith(reason)


def test_an_unsupported_network_is_refused() -> None:
    case = Case()
    case.nets = [MLP([5, 7, 7, 1])]
    with pytest.raises(ValueError, match="the kernel engine cannot run this network: it has 2 hidden layers"):
        case.engine()


@pytest.mark.slow  # the test of the factorization's kernel is fast
def test_numba_is_loaded_when_an_engine_is_built() -> None:
    code = "import sys, lnsgd.replicas.engines.mlp_kernel; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
