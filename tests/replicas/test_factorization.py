"""The factorization engine against NumPy and the general engine, and the contracts of every engine."""

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
from lnsgd.replicas import Chunk, Engine, Recipe, State, choose_engine
from lnsgd.replicas.factorization import FactorizationEngine
from lnsgd.replicas.general import GeneralEngine
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
    def chunk(self) -> Chunk:
        """The last batch of four is smaller, and one example alone where batches have two or three."""
        shape = (self.replicas, self.steps, self.batch)
        rows = torch.randint(EXAMPLES, shape, generator=self.generator(1))
        sizes = torch.full(shape[:2], self.batch)
        sizes[:, ::4] = max(1, self.batch - 2)
        targets = torch.randn(*shape, 1, generator=self.generator(2)).to(self.dtype)
        lrs = self.lr * (1 + torch.rand(shape[:2], dtype=torch.float64, generator=self.generator(3)))
        return Chunk(0, rows, sizes, targets, lrs)

    def start(self) -> Tensor:
        """Near the identity, each replica elsewhere."""
        net = MatrixFactorization(self.size, self.rank)
        noise = 0.1 * torch.randn(self.replicas, *net.factor.shape, generator=self.generator(4))
        return (net.factor.detach() + noise).to(self.dtype)

    def engine(self, kind: type[Engine] = FactorizationEngine) -> Engine:
        factor = nn.Parameter(self.start())
        velocity = {"factor": torch.zeros_like(factor)} if self.momentum else {}
        state = State({"factor": factor}, velocity, torch.full((self.replicas,), -1))
        net = MatrixFactorization(self.size, self.rank).to(self.dtype)
        options = {"compile": False} if kind is GeneralEngine else {}
        return kind(Recipe(net, SquaredLoss(), "real", self.momentum), state, self.inputs, **options)

    def batches(self, r: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
        chunk, inputs = self.chunk, self.inputs.numpy()
        rows, sizes, targets, lrs = (getattr(chunk, n)[r].numpy() for n in ("rows", "sizes", "targets", "lrs"))
        return [(inputs[row[:s]], t[:s, 0], lr) for row, s, t, lr in zip(rows, sizes, targets, lrs)]


def factor(engine: Engine) -> Tensor:
    return engine.state.parameters["factor"].detach()


def part(chunk: Chunk, start: int, stop: int) -> Chunk:
    cut = {name: getattr(chunk, name)[:, start:stop] for name in ("rows", "sizes", "targets", "lrs")}
    return Chunk(start, **cut)


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
    losses, general_losses = kernel.run(case.chunk), general.run(case.chunk)
    torch.testing.assert_close(losses, general_losses, **EXACT)
    torch.testing.assert_close(factor(kernel), factor(general), **EXACT)
    for r, u in enumerate(case.start().numpy()):
        assert losses[r].item() == pytest.approx(reference.sgd(u, case.batches(r), case.momentum), rel=1e-10)
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
    torch.testing.assert_close(kernel.run(case.chunk), double.run(replace(case, dtype=torch.float64).chunk), **SINGLE)
    torch.testing.assert_close(factor(kernel), factor(double).float(), **SINGLE)


@pytest.mark.parametrize("case", [Case(replicas=11, steps=20), Case(replicas=11, steps=20, batch=3, momentum=0.9)])
def test_chunks_and_threads_do_not_matter(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, in_parts, in_threads = case.engine(), case.engine(), case.engine()
    losses = at_once.run(case.chunk)
    summed = None
    for start, stop in ((0, 1), (1, 6), (6, 20)):
        summed = in_parts.run(part(case.chunk, start, stop), summed)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(in_threads.run(case.chunk), losses)
    assert torch.equal(summed, losses)
    assert torch.equal(factor(in_parts), factor(at_once))
    assert torch.equal(factor(in_threads), factor(at_once))


def test_new_numbers_copied_in_are_what_the_next_chunk_starts_from() -> None:
    case = Case(momentum=0.9, lr=2e-4, steps=20)
    engine = case.engine()
    engine.run(case.chunk)
    once = factor(engine).clone()
    engine.state.parameters["factor"].data.copy_(case.start())
    engine.state.velocity["factor"].zero_()
    engine.run(case.chunk)
    assert torch.equal(factor(engine), once)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_large_learning_rate_freezes_its_replica_alone(batch: int) -> None:
    case = Case(batch=batch, steps=100)
    undisturbed = case.engine()
    undisturbed.run(case.chunk)
    case.chunk.lrs[1, 4:] = 1e6
    engine = case.engine()
    losses = engine.run(case.chunk)
    at = engine.state.frozen_at.tolist()
    assert (at[0], at[2]) == (-1, -1)
    assert at[1] == step_of_divergence(case, 1) > 4
    assert losses[[0, 2]].isfinite().all()
    assert torch.equal(factor(engine)[[0, 2]], factor(undisturbed)[[0, 2]])


def step_of_divergence(case: Case, r: int) -> int:
    """Steps that a plain loop takes until an output on the next batch is not finite."""
    u = case.start()[r].numpy()
    with np.errstate(all="ignore"):
        for k, (matrices, targets, lr) in enumerate(case.batches(r)):
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
        assert engine.run(part(case.chunk, k, k + 1)).isfinite().all()
    assert engine.state.frozen_at.tolist() == [-1, 0, -1]
    assert torch.equal(factor(engine)[1].nan_to_num(), before)


def test_class_labels_are_signs() -> None:
    case = Case(steps=50)
    engine, general = case.engine(), case.engine(GeneralEngine)
    hard = replace_targets(case.chunk, (case.chunk.targets[..., 0] > 0).long())
    torch.testing.assert_close(engine.run(hard), general.run(hard), **EXACT)
    torch.testing.assert_close(factor(engine), factor(general), **EXACT)


def replace_targets(chunk: Chunk, targets: Tensor) -> Chunk:
    return replace(chunk, targets=targets)


def frozen() -> MatrixFactorization:
    net = MatrixFactorization(3)
    net.factor.requires_grad_(False)
    return net


NET, CPU = MatrixFactorization(3), torch.device("cpu")
REFUSED: dict[str, tuple[nn.Module, Loss, torch.device, str]] = {
    "network": (MLP([2, 3, 1]), SquaredLoss(), CPU, "it is a MLP, this kernel runs MatrixFactorization"),
    "loss": (NET, CrossEntropy(), CPU, "the loss CrossEntropy is not SquaredLoss"),
    "frozen": (frozen(), SquaredLoss(), CPU, "its factor is frozen"),
    "half": (MatrixFactorization(3).half(), SquaredLoss(), CPU, "its weights are torch.float16, not float32"),
    "device": (NET, SquaredLoss(), torch.device("cuda"), "device cuda: the kernel runs on the CPU"),
}


@pytest.mark.parametrize(("net", "loss", "device", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_named(net: nn.Module, loss: Loss, device: torch.device, reason: str) -> None:
    said = FactorizationEngine.unsupported(Recipe(net, loss, "real"), device)
    assert said is not None
    assert said.startswith(reason)


def test_it_is_chosen_for_a_matrix_factorization() -> None:
    recipe = Recipe(NET, SquaredLoss(), "real")
    assert choose_engine("auto", recipe, CPU) == (FactorizationEngine, "a matrix factorization on the CPU")
    assert choose_engine("kernel", recipe, CPU) == (FactorizationEngine, "asked for")
    assert choose_engine("general", recipe, CPU) == (GeneralEngine, "asked for")
    engine, why = choose_engine("auto", Recipe(frozen(), SquaredLoss(), "real"), CPU)
    assert (engine, why) == (GeneralEngine, "the kernel cannot: its factor is frozen, the kernel trains it")


def test_what_is_not_supported_is_refused() -> None:
    with pytest.raises(ValueError, match="the kernel engine cannot run this network: its factor is frozen"):
        FactorizationEngine(
            Recipe(frozen(), SquaredLoss(), "real"), State({}, {}, torch.zeros(0)), torch.zeros(1, 3, 3)
        )


def test_numba_is_loaded_when_an_engine_is_built() -> None:
    code = "import sys, lnsgd.replicas.factorization; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
