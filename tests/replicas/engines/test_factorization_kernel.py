"""The factorization kernel against NumPy and the general engine, and the contracts of every engine."""

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lnsgd.losses import CrossEntropy, Loss, SquaredLoss
from lnsgd.models import MLP, MatrixFactorization
from lnsgd.replicas import Batches, Engine, StepRule, TrainingState, choose_engine
from lnsgd.replicas.engines.factorization_kernel import FactorizationKernel
from lnsgd.replicas.engines.general import GeneralEngine
from tests.reference import factorization as reference
from tests.tolerances import EXACT

EXAMPLES = 12
SINGLE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Case:
    """R replicas on random measurements; everything is drawn from one seed."""

    size: int = 6
    rank: int | None = None
    batch: int = 1
    momentum: float = 0.0
    replicas: int = 3
    steps: int = 1000
    dtype: torch.dtype = torch.float64
    lr: float = 2e-3

    @cached_property
    def inputs(self) -> Tensor:
        return torch.randn(EXAMPLES, self.size, self.size, generator=self.generator(0)).to(self.dtype)

    @staticmethod
    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    @cached_property
    def batches(self) -> Batches:
        """Every fourth batch is smaller: a single example if batches have two or three."""
        shape = (self.replicas, self.steps, self.batch)
        rows = torch.randint(EXAMPLES, shape, generator=self.generator(1))
        sizes = torch.full(shape[:2], self.batch)
        sizes[:, ::4] = max(1, self.batch - 2)
        targets = torch.randn(*shape, 1, generator=self.generator(2)).to(self.dtype)
        lrs = self.lr * (1 + torch.rand(shape[:2], dtype=torch.float64, generator=self.generator(3)))
        return Batches(0, rows, sizes, targets, lrs)

    def start(self) -> Tensor:
        """Near the identity, each replica elsewhere."""
        net = MatrixFactorization(self.size, self.rank)
        noise = 0.1 * torch.randn(self.replicas, *net.factor.shape, generator=self.generator(4))
        return (net.factor.detach() + noise).to(self.dtype)

    def engine(self, kind: type[Engine] = FactorizationKernel) -> Engine:
        factor = nn.Parameter(self.start())
        velocity = {"factor": torch.zeros_like(factor)} if self.momentum else {}
        state = TrainingState({"factor": factor}, velocity, torch.full((self.replicas,), -1))
        net = MatrixFactorization(self.size, self.rank).to(self.dtype)
        options = {"compile": False} if kind is GeneralEngine else {}
        return kind(StepRule(net, SquaredLoss(), "real", self.momentum), state, self.inputs, **options)

    def arrays_of(self, r: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
        batches, inputs = self.batches, self.inputs.numpy()
        rows, sizes, targets, lrs = (getattr(batches, n)[r].numpy() for n in ("rows", "sizes", "targets", "lrs"))
        return [(inputs[row[:s]], t[:s, 0], lr) for row, s, t, lr in zip(rows, sizes, targets, lrs)]


def factor(engine: Engine) -> Tensor:
    return engine.state.parameters["factor"].detach()


def part(batches: Batches, start: int, stop: int) -> Batches:
    cut = {name: getattr(batches, name)[:, start:stop] for name in ("rows", "sizes", "targets", "lrs")}
    return Batches(start, **cut)


# Sizes around the multiples to which matrices are padded: 4 rows, 8 columns in double precision.
CASES = {
    "batch-one": Case(),
    "momentum": Case(momentum=0.9, lr=2e-4),
    "batches-of-three": Case(batch=3),
    "batches-of-three-momentum": Case(batch=3, momentum=0.9, lr=2e-4),
    "large-batch": Case(batch=20, steps=200),
    "size-one": Case(size=1),
    "no-padding": Case(size=8, lr=1e-3),
    "one-column-more": Case(size=9, lr=1e-3),
    "two-tiles": Case(size=16, lr=5e-4, steps=200),
    "three-vectors": Case(size=21, batch=2, lr=2e-4, steps=200),
    "rank-two": Case(rank=2),
    "rank-nine-batches": Case(size=12, rank=9, batch=2, lr=5e-4, steps=200),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_numpy_and_with_the_general_engine(case: Case) -> None:
    kernel, general = case.engine(), case.engine(GeneralEngine)
    losses, general_losses = kernel.run(case.batches), general.run(case.batches)
    torch.testing.assert_close(losses, general_losses, **EXACT)
    torch.testing.assert_close(factor(kernel), factor(general), **EXACT)
    for r, u in enumerate(case.start().numpy()):
        assert losses[r].item() == pytest.approx(reference.sgd(u, case.arrays_of(r), case.momentum), rel=1e-10)
        np.testing.assert_allclose(factor(kernel)[r].numpy(), u, **EXACT)
    assert kernel.state.frozen_at.tolist() == [-1] * case.replicas
    assert not torch.equal(factor(kernel), case.start())


@pytest.mark.parametrize("size", [3, 16, 20, 33])
@pytest.mark.parametrize("batch", [1, 3])
def test_single_precision(size: int, batch: int) -> None:
    """Vectors have sixteen numbers."""
    case = Case(size=size, batch=batch, dtype=torch.float32, steps=50, lr=2e-3 / size)
    kernel = case.engine()
    double = replace(case, dtype=torch.float64).engine()
    torch.testing.assert_close(
        kernel.run(case.batches), double.run(replace(case, dtype=torch.float64).batches), **SINGLE
    )
    torch.testing.assert_close(factor(kernel), factor(double).float(), **SINGLE)


@pytest.mark.parametrize("case", [Case(replicas=11, steps=20), Case(replicas=11, steps=20, batch=3, momentum=0.9)])
def test_results_do_not_depend_on_calls_and_threads(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, in_parts, in_threads = case.engine(), case.engine(), case.engine()
    losses = at_once.run(case.batches)
    summed = None
    for start, stop in ((0, 1), (1, 6), (6, 20)):
        summed = in_parts.run(part(case.batches, start, stop), summed)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(in_threads.run(case.batches), losses)
    assert torch.equal(summed, losses)
    assert torch.equal(factor(in_parts), factor(at_once))
    assert torch.equal(factor(in_threads), factor(at_once))


def test_a_call_starts_from_the_numbers_in_the_state() -> None:
    case = Case(momentum=0.9, lr=2e-4, steps=20)
    engine = case.engine()
    engine.run(case.batches)
    once = factor(engine).clone()
    engine.state.parameters["factor"].data.copy_(case.start())
    engine.state.velocity["factor"].zero_()
    engine.run(case.batches)
    assert torch.equal(factor(engine), once)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_large_learning_rate_freezes_its_replica_alone(batch: int) -> None:
    case = Case(batch=batch, steps=100)
    undisturbed = case.engine()
    undisturbed.run(case.batches)
    case.batches.lrs[1, 4:] = 1e6
    engine = case.engine()
    losses = engine.run(case.batches)
    at = engine.state.frozen_at.tolist()
    assert (at[0], at[2]) == (-1, -1)
    assert at[1] == step_of_divergence(case, 1) > 4
    assert losses[[0, 2]].isfinite().all()
    assert torch.equal(factor(engine)[[0, 2]], factor(undisturbed)[[0, 2]])


def step_of_divergence(case: Case, r: int) -> int:
    """Return the steps that a plain loop takes until an output on the next batch is not finite."""
    u = case.start()[r].numpy()
    with np.errstate(all="ignore"):
        for k, (matrices, targets, lr) in enumerate(case.arrays_of(r)):
            if not np.isfinite(reference.outputs(u, matrices)).all():
                return k
            reference.sgd(u, [(matrices, targets, lr)])
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_nan_freezes_its_replica(batch: int) -> None:
    case = Case(batch=batch, steps=4)
    engine = case.engine()
    engine.state.parameters["factor"].data[1, 2, 3] = torch.nan
    before = factor(engine)[1].nan_to_num()
    for k in range(4):
        assert engine.run(part(case.batches, k, k + 1)).isfinite().all()
    assert engine.state.frozen_at.tolist() == [-1, 0, -1]
    assert torch.equal(factor(engine)[1].nan_to_num(), before)


def test_class_labels_are_signs() -> None:
    case = Case(steps=50)
    engine, general = case.engine(), case.engine(GeneralEngine)
    hard = replace_targets(case.batches, (case.batches.targets[..., 0] > 0).long())
    torch.testing.assert_close(engine.run(hard), general.run(hard), **EXACT)
    torch.testing.assert_close(factor(engine), factor(general), **EXACT)


def replace_targets(batches: Batches, targets: Tensor) -> Batches:
    return replace(batches, targets=targets)


def frozen() -> MatrixFactorization:
    net = MatrixFactorization(3)
    net.factor.requires_grad_(False)
    return net


NET, CPU = MatrixFactorization(3), torch.device("cpu")
REFUSED: dict[str, tuple[nn.Module, Loss, torch.device, str]] = {
    "network": (MLP([2, 3, 1]), SquaredLoss(), CPU, "it is a MLP, this kernel runs MatrixFactorization"),
    "loss": (NET, CrossEntropy(), CPU, "its loss is CrossEntropy, this kernel runs SquaredLoss"),
    "frozen": (frozen(), SquaredLoss(), CPU, "its factor is frozen"),
    "half": (
        MatrixFactorization(3).half(),
        SquaredLoss(),
        CPU,
        "its weights are torch.float16, the kernel runs float32",
    ),
    "device": (NET, SquaredLoss(), torch.device("cuda"), "device cuda: the kernel runs on the CPU"),
}


@pytest.mark.parametrize(("net", "loss", "device", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_part_is_named(net: nn.Module, loss: Loss, device: torch.device, reason: str) -> None:
    said = FactorizationKernel.unsupported(StepRule(net, loss, "real"), device)
    assert said is not None
    assert said.startswith(reason)


def test_it_is_chosen_for_a_matrix_factorization() -> None:
    rule = StepRule(NET, SquaredLoss(), "real")
    assert choose_engine("auto", rule, CPU) == (FactorizationKernel, "a matrix factorization on the CPU")
    assert choose_engine("kernel", rule, CPU) == (FactorizationKernel, "as configured")
    assert choose_engine("general", rule, CPU) == (GeneralEngine, "as configured")
    engine, why = choose_engine("auto", StepRule(frozen(), SquaredLoss(), "real"), CPU)
    assert (engine, why) == (GeneralEngine, "the kernel cannot: its factor is frozen, the kernel trains it")


def test_an_unsupported_network_is_refused() -> None:
    with pytest.raises(ValueError, match="the kernel engine cannot run this network: its factor is frozen"):
        FactorizationKernel(
            StepRule(frozen(), SquaredLoss(), "real"), TrainingState({}, {}, torch.zeros(0)), torch.zeros(1, 3, 3)
        )


def test_numba_is_loaded_when_an_engine_is_built() -> None:
    code = "import sys, lnsgd.replicas.engines.factorization_kernel; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
