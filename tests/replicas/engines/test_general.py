"""The general engine against one ordinary PyTorch loop per replica."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lnsgd.label_noise import TargetKind
from lnsgd.losses import CrossEntropy, HingeLoss, LogisticLoss, Loss, SquaredLoss
from lnsgd.models import MLP
from lnsgd.replicas.engines.base import Batches, StepRule, TrainingState
from lnsgd.replicas.engines.general import GeneralEngine
from tests.tolerances import EXACT

POOL = 7
FROZEN_AT = 3

# Name: the loss, the kind of targets, the outputs.
COMPILE = [pytest.param(False, id="eager"), pytest.param(True, marks=pytest.mark.slow, id="compiled")]

LOSSES = {
    "cross-entropy-hard": (CrossEntropy(), "hard", 3),
    "cross-entropy-soft": (CrossEntropy(), "soft", 3),
    "logistic-hard-1": (LogisticLoss(), "hard", 1),
    "logistic-hard-3": (LogisticLoss(), "hard", 3),
    "logistic-soft-1": (LogisticLoss(), "soft", 1),
    "hinge-hard-1": (HingeLoss(), "hard", 1),
    "hinge-hard-3": (HingeLoss(0.3), "hard", 3),
    "squared-hard-3": (SquaredLoss(), "hard", 3),
    "squared-soft-1": (SquaredLoss(), "soft", 1),
    "squared-real-2": (SquaredLoss("sum"), "real", 2),
}
NETS = {
    "one-layer": lambda: MLP([4, 3]),
    "one-hidden": lambda: MLP([4, 6, 3], activation="tanh"),
    "no-bias": lambda: MLP([4, 6, 3], bias=False, activation="cubic"),
    "two-hidden": lambda: MLP([4, 6, 5, 3], activation="logistic"),
    "three-hidden": lambda: MLP([4, 6, 5, 6, 3], activation="relu"),
    "fixed-output": lambda: MLP([4, 6, 3], train_layers=[0]),
    "fixed-input": lambda: MLP([4, 6, 5, 3], train_layers=[-1]),
    "convolutional": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)
    ),
    "with-buffers": lambda: nn.Sequential(Scale(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3).requires_grad_(False)),
}


class Scale(nn.Module):
    """Has a buffer, a tensor that is none, and an unused parameter."""

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.linspace(0.5, 1.5, 4, dtype=torch.float64))
        self.shift = torch.full((4,), 0.1, dtype=torch.float64)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.shift


def networks(build, replicas: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [build().double() for _ in range(replicas)]


def stacked(nets: list[nn.Module], momentum: float) -> TrainingState:
    parameters = {
        name: nn.Parameter(torch.stack([net.get_parameter(name).detach() for net in nets]), one.requires_grad)
        for name, one in nets[0].named_parameters()
    }
    velocity = {n: torch.zeros_like(p) for n, p in parameters.items() if p.requires_grad} if momentum else {}
    return TrainingState(parameters, velocity, torch.full((len(nets),), -1))


def inputs_of(width: int = 4) -> Tensor:
    return torch.randn(POOL, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def batches_of(replicas: int, steps: int, batch: int, kind: TargetKind, classes: int, varying: bool = False) -> Batches:
    generator = torch.Generator().manual_seed(2)
    shape = (replicas, steps, batch)
    if kind == "hard":
        targets = torch.randint(max(classes, 2), shape, generator=generator)
    else:
        targets = torch.randn(*shape, max(classes, 2), generator=generator, dtype=torch.float64)
        targets = targets.softmax(-1) if kind == "soft" else targets
    return Batches(
        first_step=0,
        rows=torch.randint(POOL, shape, generator=generator),
        sizes=torch.randint(1, batch + 1, shape[:2], generator=generator) if varying else torch.full(shape[:2], batch),
        targets=targets,
        lrs=0.02 * torch.rand(shape[:2], generator=generator, dtype=torch.float64),
    )


def tensors_of(state: TrainingState) -> list[Tensor]:
    return [*(p.detach() for p in state.parameters.values()), *state.velocity.values(), state.frozen_at]


def part(batches: Batches, start: int, stop: int) -> Batches:
    rest = (x[:, start:stop] for x in (batches.rows, batches.sizes, batches.targets, batches.lrs))
    return Batches(batches.first_step + start, *rest)


def loop(
    net: nn.Module, r: int, batches: Batches, loss: Loss, momentum: float, inputs: Tensor
) -> tuple[nn.Module, float]:
    """Replica r alone: the trained network, and the sum of its losses."""
    net = copy.deepcopy(net)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.0, momentum=momentum)
    total = 0.0
    for k in range(batches.rows.shape[1]):
        size = int(batches.sizes[r, k])
        mean = loss(net(inputs[batches.rows[r, k, :size]]), batches.targets[r, k, :size]).mean()
        optimizer.param_groups[0]["lr"] = float(batches.lrs[r, k])
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        total += mean.item()
    return net, total


def assert_as_loops(build, loss, kind, batches, momentum=0.0, compile=False, tolerance=EXACT) -> None:
    replicas = len(batches.rows)
    nets, inputs = networks(build, replicas), inputs_of()
    state = stacked(nets, momentum)
    losses = GeneralEngine(StepRule(nets[0], loss, kind, momentum), state, inputs, compile=compile).run(batches)
    assert losses.shape == (replicas,) and losses.dtype == torch.float64
    for r, net in enumerate(nets):
        expected, total = loop(net, r, batches, loss, momentum, inputs)
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(state.parameters[name][r].detach(), parameter.detach(), **tolerance)
        assert losses[r].item() == pytest.approx(total, rel=1e-10)
    assert (state.frozen_at == -1).all()


@pytest.mark.parametrize("batch, varying", [(1, False), (3, True), (POOL, False)], ids=["one", "varying", "full"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss, kind, outputs", LOSSES.values(), ids=LOSSES)
def test_steps_are_those_of_plain_sgd(loss, kind, outputs, momentum, batch, varying):
    batches = batches_of(3, 40, batch, kind, outputs, varying)
    assert_as_loops(lambda: MLP([4, 6, outputs]), loss, kind, batches, momentum)


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_any_network(build):
    assert_as_loops(build, CrossEntropy(), "hard", batches_of(3, 40, 3, "hard", 3, varying=True), momentum=0.5)


@pytest.mark.parametrize("compile", COMPILE)
def test_a_thousand_steps(compile):
    batches = batches_of(2, 1000, 2, "hard", 1, varying=True)
    assert_as_loops(
        lambda: MLP([4, 6, 1]), LogisticLoss(), "hard", batches, 0.9, compile, {"rtol": 1e-10, "atol": 1e-10}
    )


@pytest.mark.parametrize("name", [pytest.param("convolutional", marks=pytest.mark.slow), "with-buffers"])
def test_compiled_as_plain_sgd(name):
    batches = batches_of(2, 40, 2, "soft", 3, varying=True)
    assert_as_loops(NETS[name], CrossEntropy(), "soft", batches, compile=True)


@pytest.mark.parametrize(
    "dtype, compile",
    [
        pytest.param(torch.float32, False, id="float32"),
        pytest.param(torch.float64, False, id="float64"),
        pytest.param(torch.float32, True, id="float32-compiled"),
        pytest.param(torch.float64, True, marks=pytest.mark.slow, id="float64-compiled"),
    ],
)
def test_calls_and_resuming_do_not_change_a_bit(dtype, compile):
    batches, inputs = batches_of(5, 50, 2, "hard", 3, varying=True), inputs_of().to(dtype)
    nets = [net.to(dtype) for net in networks(lambda: MLP([4, 20, 3]), 5)]
    rule = StepRule(nets[0], CrossEntropy(), "hard", momentum=0.9)
    whole, cut = stacked(nets, 0.9), stacked(nets, 0.9)
    first, second = (GeneralEngine(rule, state, inputs, compile=compile) for state in (whole, cut))
    losses = first.run(batches)
    expected = tensors_of(copy.deepcopy(whole))
    losses_cut = second.run(part(batches, 0, 1)) + second.run(part(batches, 1, 6))
    for here, there in zip(tensors_of(whole), tensors_of(cut)):
        here.copy_(there)
    losses_cut += first.run(part(batches, 6, 50))  # as after a resume: another engine goes on from the state
    for tensor, value in zip(tensors_of(whole), expected):
        assert torch.equal(tensor, value)
    torch.testing.assert_close(losses_cut, losses, rtol=1e-14, atol=0)  # sums of sums


def test_a_replica_equals_its_run_alone():
    batches, inputs, nets = batches_of(3, 60, 2, "hard", 3), inputs_of(), networks(lambda: MLP([4, 6, 3]), 3)
    rule = StepRule(nets[0], CrossEntropy(), "hard")
    together, alone = stacked(nets, 0.0), stacked(nets[1:2], 0.0)
    losses = GeneralEngine(rule, together, inputs, compile=False).run(batches)
    of_one = Batches(0, batches.rows[1:2], batches.sizes[1:2], batches.targets[1:2], batches.lrs[1:2])
    torch.testing.assert_close(GeneralEngine(rule, alone, inputs, compile=False).run(of_one), losses[1:2])
    for name, parameter in alone.parameters.items():
        torch.testing.assert_close(parameter[0], together.parameters[name][1], rtol=1e-12, atol=1e-12)


def test_float32_stays_close_to_float64():
    batches, inputs, nets = batches_of(2, 100, 2, "soft", 3), inputs_of(), networks(lambda: MLP([4, 6, 3]), 2)
    exact, single = stacked(nets, 0.0), stacked([copy.deepcopy(net).float() for net in nets], 0.0)
    GeneralEngine(StepRule(nets[0], CrossEntropy(), "soft"), exact, inputs, compile=False).run(batches)
    rule = StepRule(copy.deepcopy(nets[0]).float(), CrossEntropy(), "soft")
    losses = GeneralEngine(rule, single, inputs.float(), compile=False).run(batches)
    assert losses.dtype == torch.float64
    for name, parameter in single.parameters.items():
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter.double(), exact.parameters[name].double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "value, compile",
    [
        pytest.param(float("inf"), False, id="inf"),
        pytest.param(float("nan"), False, id="nan"),
        pytest.param(float("nan"), True, marks=pytest.mark.slow, id="compiled"),
    ],
)
def test_a_diverged_replica_is_frozen_and_affects_no_other(value, compile):
    batches, nets = batches_of(3, 50, 2, "hard", 3), networks(lambda: MLP([4, 6, 3]), 3)
    rule, bad = StepRule(nets[0], CrossEntropy(), "hard", momentum=0.9), POOL
    inputs = torch.cat([inputs_of(), torch.full((1, 4), value, dtype=torch.float64)])
    batches.rows[1, FROZEN_AT:5, 1] = bad
    state = stacked(nets, 0.9)
    engine = GeneralEngine(rule, state, inputs, compile=compile)
    losses = engine.run(part(batches, 0, 2)) + engine.run(part(batches, 2, 50))
    assert state.frozen_at.tolist() == [-1, FROZEN_AT, -1]
    for r, steps in enumerate((50, FROZEN_AT, 50)):
        expected, total = loop(nets[r], r, part(batches, 0, steps), CrossEntropy(), 0.9, inputs)
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(state.parameters[name][r].detach(), parameter.detach(), **EXACT)
        assert losses[r].item() == pytest.approx(total, rel=1e-10)
    assert all(v.isfinite().all() for v in state.velocity.values())


def test_a_learning_rate_too_large_diverges_alone():
    batches, nets = batches_of(2, 200, 1, "real", 2), networks(lambda: MLP([4, 6, 2], activation="cubic"), 2)
    batches.lrs[0] = 10.0
    batches.lrs[1] = 1e-3
    state = stacked(nets, 0.0)
    GeneralEngine(StepRule(nets[0], SquaredLoss(), "real"), state, inputs_of(), compile=False).run(batches)
    assert 0 < state.frozen_at[0] < 200 and state.frozen_at[1] == -1
    assert all(p[1].isfinite().all() for p in state.parameters.values())


def test_padding_has_no_effect():
    batches, nets = batches_of(2, 10, 3, "real", 2, varying=True), networks(lambda: MLP([4, 6, 2]), 2)
    inputs = torch.cat([inputs_of(), torch.full((1, 4), float("nan"), dtype=torch.float64)])
    states = []
    for poison in (False, True):
        padding = torch.arange(3) >= batches.sizes.unsqueeze(2)
        if poison:
            batches.rows[padding] = POOL
            batches.targets[padding] = float("nan")
        states.append(stacked(nets, 0.0))
        GeneralEngine(StepRule(nets[0], SquaredLoss(), "real"), states[-1], inputs, compile=False).run(batches)
    assert states[1].frozen_at.tolist() == [-1, -1]
    for clean, poisoned in zip(states[0].parameters.values(), states[1].parameters.values()):
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize(
    "layer, clause",
    [
        (nn.Dropout(0.1), "its module `1` (Dropout) is random in training"),
        (
            nn.BatchNorm1d(3),
            "its module `1` (BatchNorm1d) changes buffers and mixes the examples of a batch in training",
        ),
        (nn.InstanceNorm1d(3, track_running_stats=True), "its module `1` (InstanceNorm1d) changes buffers in training"),
        (nn.RReLU(), "its module `1` (RReLU) is random in training"),
        (nn.LSTM(3, 3, 2, dropout=0.5), "its module `1` (LSTM) is random in training"),
        (nn.Dropout(0.0), None),
        (nn.InstanceNorm1d(3), None),
        (nn.LayerNorm(3), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_an_unsupported_module_is_named(layer, clause):
    rule = StepRule(nn.Sequential(nn.Linear(3, 3), layer), CrossEntropy(), "hard")
    assert GeneralEngine.unsupported(rule, torch.device("cpu")) == clause


def test_other_devices_are_unsupported():
    clause = GeneralEngine.unsupported(StepRule(MLP([3, 3]), CrossEntropy(), "hard"), torch.device("mps"))
    assert clause == "it runs on cpu and cuda, not on mps"


def test_a_missing_compiler_is_reported_in_one_line(monkeypatch, tmp_path):
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    nets = networks(lambda: MLP([4, 3]), 1)
    engine = GeneralEngine(StepRule(nets[0], CrossEntropy(), "hard"), stacked(nets, 0.0), inputs_of())
    no_compiler = inductor.patch({"cpp.cxx": (None, "no-such-compiler")})
    with no_compiler, pytest.raises(ValueError, match=r"^no C\+\+ compiler; install g\+\+"):
        engine.run(batches_of(1, 1, 1, "hard", 3))
