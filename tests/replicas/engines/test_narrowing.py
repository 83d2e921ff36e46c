"""The general engine once replicas are frozen: fewer are computed, and nothing else changes."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.replicas import Batches, StepRule, TrainingState
from lnsgd.replicas.engines.general import GeneralEngine
from lnsgd.replicas.engines.narrowing import NarrowState, computed_replicas, split_at_multiples, steps_between_widths
from tests.reference.sgd import sgd
from tests.tolerances import EXACT

POOL, INPUTS, CLASSES, BATCH = 9, 4, 3, 2
STEPS, GRID = 100, 10

# Replica: the step at which something stops it: on a multiple of the grid, beside one, within.
STOPS = {4: 10, 5: 3, 0: 25, 2: 49, 1: 60}
# Stacked replicas in each stretch of ten steps, of six: replicas frozen before its first step do not count.
WIDTHS = [6, 6, 6, 3, 3, 2, 2, 1, 1, 1]
BAD = POOL  # the row of the pool of inputs that makes a replica diverge


class Widths(CrossEntropy):
    """Cross-entropy that notes how many replicas were computed in each step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.seen.append(len(outputs) // BATCH)
        return super().__call__(outputs, targets)


@dataclass
class Run:
    """Some replicas, their batches, and the steps at which they stop or diverge."""

    replicas: int = 6
    momentum: float = 0.9
    dtype: torch.dtype = torch.float64
    build: Any = lambda: MLP([INPUTS, 6, CLASSES], activation="tanh")
    stops: dict[int, int] = field(default_factory=lambda: dict(STOPS))
    bad: dict[int, int] = field(default_factory=dict)  # replica: step of a batch on which it diverges
    compile: bool = False
    grid: int = GRID

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        nets = [self.build().to(self.dtype) for _ in range(self.replicas)]
        self.net = nets[0]
        parameters = {
            name: nn.Parameter(torch.stack([net.get_parameter(name).detach() for net in nets]), one.requires_grad)
            for name, one in self.net.named_parameters()
        }
        trained = {name: p for name, p in parameters.items() if p.requires_grad}
        velocity = {name: torch.zeros_like(p) for name, p in trained.items()} if self.momentum else {}
        self.state = TrainingState(parameters, velocity, torch.full((self.replicas,), -1))
        self.start = copy.deepcopy(self.state)
        inputs = torch.randn(POOL, INPUTS, generator=generator, dtype=torch.float64)
        self.inputs = torch.cat([inputs, torch.full((1, INPUTS), torch.nan)]).to(self.dtype)
        shape = (self.replicas, STEPS, BATCH)
        self.batches = Batches(
            0,
            torch.randint(POOL, shape, generator=generator),
            torch.randint(1, BATCH + 1, shape[:2], generator=generator),
            torch.randint(CLASSES, shape, generator=generator),
            0.05 * torch.rand(shape[:2], generator=generator, dtype=torch.float64),
        )
        for replica, step in self.bad.items():
            self.batches.rows[replica, step] = BAD
        self.losses = torch.zeros(self.replicas, dtype=torch.float64)
        self.loss = Widths()
        self.renew()

    def renew(self) -> None:
        """Build a new engine on the state alone, as after a resume."""
        rule = StepRule(self.net, self.loss, "hard", self.momentum)
        self.engine = GeneralEngine(rule, self.state, self.inputs, self.compile, steps_per_width=self.grid)

    def take(self, start: int, stop: int) -> None:
        """Take some steps, after stopping the replicas that are due."""
        for replica, step in self.stops.items():
            if step == start and self.state.frozen_at[replica] < 0:
                self.state.frozen_at[replica] = step
        parts = (
            x[:, start:stop] for x in (self.batches.rows, self.batches.sizes, self.batches.targets, self.batches.lrs)
        )
        assert self.engine.run(Batches(start, *parts), self.losses) is self.losses

    def all(self, cuts: Iterable[int] = (), renew: bool = False) -> "Run":
        """Take all steps, in calls that end at each stop and at ``cuts``."""
        for start, stop in pairwise(sorted({0, *self.stops.values(), *cuts, STEPS})):
            if renew and start in {*cuts}:
                self.renew()
            self.take(start, stop)
        return self

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that must agree."""
        parameters = [p.detach() for p in self.state.parameters.values()]
        return [*parameters, *self.state.velocity.values(), self.state.frozen_at, self.losses]

    def reference(self, replica: int, steps: int) -> tuple[list[np.ndarray], float]:
        """A replica's weights after so many steps, and the sum of its losses, by NumPy."""
        weights = [p[replica].detach().numpy().copy() for p in self.start.parameters.values()]
        batches, inputs = self.batches, self.inputs.numpy()
        one_hot = np.eye(CLASSES)[batches.targets[replica].numpy()]
        batches = [
            (inputs[batches.rows[replica, k, :size].numpy()], one_hot[k, :size], float(batches.lrs[replica, k]))
            for k, size in enumerate(batches.sizes[replica, :steps].tolist())
        ]
        return weights, sgd(weights, batches, "tanh", "softmax", self.momentum)


def assert_same_bits(one: Run, other: Run) -> None:
    for here, there in zip(one.tensors, other.tensors, strict=True):
        assert torch.equal(here, there)


# -- which replicas are computed


def test_computed_replicas_at_known_steps():
    frozen_at = [7, -1, 30, 12, -1, 10, 3, 10]
    assert computed_replicas(frozen_at, 9, 10) == list(range(8))
    assert computed_replicas(frozen_at, 10, 10) == list(range(8))  # six are needed
    assert computed_replicas(frozen_at, 20, 10) == [0, 1, 2, 4]  # three, and one more
    assert computed_replicas(frozen_at, 39, 10) == [0, 1, 2, 4]
    assert computed_replicas(frozen_at, 40, 10) == [1, 4]
    assert computed_replicas([-1, 4, 4, 4, 4], 10, 10) == [0]
    assert computed_replicas([-1, 4, -1, 4, -1], 10, 10) == [0, 2, 4]
    assert computed_replicas([4, 4], 10, 10) == [0]
    assert computed_replicas([4], 10, 10) == [0]


def test_computed_replicas_depend_on_the_last_multiple_alone():
    grid = 4
    for ends in product([-1, 0, 3, 4, 5, 8, 11], repeat=4):
        for since in (0, 4, 8):
            moving = {r for r, end in enumerate(ends) if end < 0 or end > since}
            # One that is frozen at this very step may be known to be by then, or not.
            known = [
                [end if 0 <= end < since or (early and end == since) else -1 for end in ends] for early in (False, True)
            ]
            for step in range(since, since + grid):
                known.append([end if 0 <= end <= step else -1 for end in ends])
                found = {tuple(computed_replicas(frozen_at, step, grid)) for frozen_at in known}
                assert len(found) == 1
                (chosen,) = found
                assert moving <= {*chosen} and [*chosen] == sorted({*chosen})
                assert len(chosen) in (4, 2, 1)


def test_steps_are_split_at_multiples():
    assert list(split_at_multiples(3, 25, 10)) == [(3, 10), (10, 20), (20, 25)]
    assert list(split_at_multiples(10, 20, 10)) == [(10, 20)]
    assert list(split_at_multiples(12, 13, 10)) == [(12, 13)]
    assert list(split_at_multiples(5, 5, 10)) == []


def test_small_steps_keep_a_width_for_longer():
    cpu = torch.device("cpu")
    assert steps_between_widths(83_050, 64, 12, cpu) == 1307  # 5e11 / 382,694,400, rounded up
    assert steps_between_widths(1_000, 1, 1, cpu) == 83_333_334
    assert steps_between_widths(10**8, 128, 10, cpu) == 1000
    assert steps_between_widths(83_050, 64, 12, torch.device("cuda")) > 100_000


def test_a_narrow_state_keeps_its_memory_and_changes_its_replicas_alone():
    run = Run()
    narrow = NarrowState(run.state, 2)
    own = [*narrow.state.parameters.values(), *narrow.state.velocity.values(), narrow.state.frozen_at]
    addresses = [tensor.data_ptr() for tensor in own]
    for chosen in ([1, 4], [0, 5]):
        with torch.no_grad():
            narrow.gather(torch.tensor(chosen))
            for tensor in own:
                tensor.add_(1)
            narrow.scatter()
    assert [tensor.data_ptr() for tensor in own] == addresses
    whole = [*run.state.parameters.values(), *run.state.velocity.values(), run.state.frozen_at]
    start = [*run.start.parameters.values(), *run.start.velocity.values(), run.start.frozen_at]
    shift = torch.tensor([1, 1, 0, 0, 1, 1])
    for now, before in zip(whole, start, strict=True):
        assert torch.equal(now, before + shift.view(-1, *[1] * (now.ndim - 1)))


# -- the engine


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["plain", "momentum"])
def test_each_replica_takes_the_steps_of_numpy_until_it_is_stopped(momentum):
    run = Run(momentum=momentum).all()
    assert run.loss.seen == [width for width in WIDTHS for _ in range(GRID)]
    assert run.state.frozen_at.tolist() == [STOPS.get(r, -1) for r in range(6)]
    for replica in range(6):
        weights, total = run.reference(replica, STOPS.get(replica, STEPS))
        assert run.losses[replica].item() == pytest.approx(total, rel=1e-10)
        for parameter, expected in zip(run.state.parameters.values(), weights, strict=True):
            np.testing.assert_allclose(parameter[replica].detach().numpy(), expected, **EXACT)


def scaled_convolution() -> nn.Module:
    net = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, CLASSES)
    )
    net[1].bias.requires_grad_(False)
    net.register_buffer("unused", torch.ones(2))
    return net


@pytest.mark.parametrize("momentum", [0.0, 0.9], ids=["plain", "momentum"])
def test_narrowing_does_not_change_the_training_of_any_network(momentum):
    compact = Run(momentum=momentum, build=scaled_convolution).all()
    whole = Run(momentum=momentum, build=scaled_convolution, grid=STEPS + 1).all()
    assert {*whole.loss.seen} == {6} and {*compact.loss.seen} == {6, 3, 2, 1}
    for here, there in zip(compact.tensors, whole.tensors, strict=True):
        torch.testing.assert_close(here, there, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "cuts",
    [range(1, STEPS), range(7, STEPS, 7), [10, 20, 30], [9, 11, 26, 31, 69, 71]],
    ids=["each", "sevens", "multiples", "beside"],
)
@pytest.mark.parametrize("resumed", [False, True], ids=["one-engine", "resumed"])
def test_calls_and_resuming_do_not_change_a_bit(cuts, dtype, resumed):
    bad = {3: 30}  # on a multiple of the grid, where it cannot be known before
    whole, cut = Run(dtype=dtype, bad=bad).all(), Run(dtype=dtype, bad=bad).all(cuts, renew=resumed)
    assert whole.state.frozen_at[3] == 30
    assert_same_bits(whole, cut)
    assert cut.loss.seen == whole.loss.seen


@pytest.mark.parametrize("step", [30, 57, 59, 70, 71])
def test_a_replica_may_diverge_after_narrowing(step):
    run = Run(bad={3: step}).all()
    assert run.state.frozen_at.tolist() == [STOPS.get(r, step) for r in range(6)]
    for replica in range(6):
        weights, total = run.reference(replica, STOPS.get(replica, step))
        assert run.losses[replica].item() == pytest.approx(total, rel=1e-10)
        for parameter, expected in zip(run.state.parameters.values(), weights, strict=True):
            np.testing.assert_allclose(parameter[replica].detach().numpy(), expected, **EXACT)
    assert all(tensor.isfinite().all() for tensor in run.tensors)


def test_a_state_that_is_reset_is_computed_whole_again():
    run = Run().all()
    expected = [tensor.clone() for tensor in run.tensors]
    with torch.no_grad():
        for now, before in zip(run.state.parameters.values(), run.start.parameters.values()):
            now.copy_(before)
        for velocity in run.state.velocity.values():
            velocity.zero_()
        run.state.frozen_at.fill_(-1)
        run.losses.zero_()
    for tensor, value in zip(run.all().tensors, expected, strict=True):
        assert torch.equal(tensor, value)


@pytest.mark.slow
def test_each_width_is_compiled_once_and_cached_on_disk(monkeypatch):
    """A second engine uses the cache as another process would: TorchInductor keeps graphs only on disk."""
    from torch._dynamo.utils import counters

    compiled, compile_step = [], compat.compile_with_inductor

    def counted(step, tensors, remedy):
        compiled.append(len(tensors[0]))
        return compile_step(step, tensors, remedy)

    monkeypatch.setattr(compat, "compile_with_inductor", counted)

    def run(cuts: Iterable[int]) -> Run:
        return Run(replicas=2, stops={0: 15}, compile=True).all(cuts)

    whole = run([])
    assert compiled == [2, 1]
    before = counters["inductor"].copy()
    cut = run([3, 7, 20, 33, 34, 90])
    found = counters["inductor"] - before
    assert compiled == [2, 1] * 2
    assert found["fxgraph_cache_hit"] == 2 and not found["fxgraph_cache_miss"]
    assert_same_bits(whole, cut)
    for replica, steps in enumerate((15, STEPS)):
        weights, total = whole.reference(replica, steps)
        assert whole.losses[replica].item() == pytest.approx(total, rel=1e-10)
        for parameter, expected in zip(whole.state.parameters.values(), weights, strict=True):
            np.testing.assert_allclose(parameter[replica].detach().numpy(), expected, **EXACT)


def test_nothing_is_copied_while_all_replicas_are_running():
    """The engine changes the tensors of the state themselves."""
    run = Run(stops={})
    run.take(0, 5)
    assert run.engine._memory is not None and run.engine._memory.state is run.state
