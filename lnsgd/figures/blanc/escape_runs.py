"""Label-noise SGD from given weights with zero error: the runs of `lnsgd.figures.blanc.escape`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.label_noise import GaussianNoise
from lnsgd.losses import SquaredLoss
from lnsgd.measures.closed_forms import TanhNetwork, projected_flow
from lnsgd.models import MLP
from lnsgd.replicas import (
    BatchStream,
    LearningRate,
    ReplicaSettings,
    StepRule,
    TrainingSet,
    TrainingState,
    choose_engine,
)

# Tanh units and inputs on the unit circle: 18 weights, of which three examples leave 15 directions flat.
DIMENSION, UNITS, EXAMPLES = 2, 6, 3

# Standard deviation of the noise.
STD = 0.1

# The last s, and the number of equally spaced s at which runs are measured.
END, LOOKS = 0.03, 6

# Instances are drawn until the smallest eigenvalue of mean ∇h∇hᵀ on the steep directions is at least STEEP at θ*, and
# at least STILL_STEEP at the stationary point that the flow reaches from θ*.
STEEP, STILL_STEEP = 0.05, 0.02
# A stationary point has at most this part of the initial ‖P_T ∇R‖, and is sought at this s of the flow.
LEFT, FAR = 1e-4, 500.0

_EXAMPLES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Start:
    """The point from which runs start.

    Attributes:
        problem: The examples.
        weights: θ*, (1, H, d + 1).
    """

    problem: TanhNetwork
    weights: Tensor

    @property
    def steep(self) -> Tensor:
        """The gradients ∇h(x_i), which span the steep directions, (n, P)."""
        return self.problem.jacobian(self.weights)[0].flatten(1)

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest eigenvalue of mean ∇h∇hᵀ on the steep directions."""
        return float(torch.linalg.eigvalsh(self.steep @ self.steep.T)[0]) / len(self.steep)

    def flat_part(self, directions: Tensor) -> Tensor:
        """Project directions (…, P) on the flat directions: P_T."""
        basis = torch.linalg.qr(self.steep.T)[0]
        return directions - directions @ basis @ basis.T

    @property
    def drift(self) -> Tensor:
        """The drift −P_T ∇R, (P,)."""
        return -self.flat_part(self.problem.regularizer_gradient(self.weights).flatten())

    def flowed(self, times: Sequence[float]) -> Tensor:
        """Return the points of the flow at times s, (T, 1, H, d + 1)."""
        return projected_flow(self.problem, self.weights, times)


def instance(seed: int) -> tuple[Start, Start]:
    """Draw a network that fits its examples, and a stationary point of R that the flow reaches from there.

    All weights are N(0, 1); the labels are the outputs of the network on random points.
    """
    generator = rng.generator(seed, "data")

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, dtype=torch.float64, generator=generator)

    while True:
        directions, weights = normal(EXAMPLES, DIMENSION), normal(UNITS, DIMENSION + 1)
        inputs = directions / directions.norm(dim=-1, keepdim=True)
        unlabelled = TanhNetwork(inputs, torch.zeros(1, EXAMPLES, dtype=torch.float64))
        start = Start(TanhNetwork(inputs, unlabelled.outputs(weights)), weights)
        if start.smallest_eigenvalue < STEEP:
            continue
        rest = Start(start.problem, start.flowed([FAR])[0])
        if rest.smallest_eigenvalue >= STILL_STEEP and rest.drift.norm() <= LEFT * start.drift.norm():
            return start, rest


def deviations(start: Start, lr: float, seeds: Sequence[int]) -> Tensor:
    """Run each seed and return θ − θ* at `LOOKS` equally spaced s up to `END`, (LOOKS, R, P)."""
    return run_to(start, lr, seeds, [round(steps_to_end(lr) * look / LOOKS) for look in range(1, LOOKS + 1)])


def run_to(
    start: Start, lr: float, seeds: Sequence[int], stops: Sequence[int], std: float = STD, copies: bool = False
) -> Tensor:
    """Run each seed and return θ − θ* after some numbers of steps, (T, R, P).

    Args:
        start: The point from which runs start.
        lr: Step size η.
        seeds: Seeds of the R runs.
        stops: Numbers of steps, increasing.
        std: Standard deviation δ of the label noise.
        copies: Whether, instead of noise, each example has two copies, with the labels y + δ and y − δ.
    """
    hidden, output = start.weights[0, :, :-1], start.weights[0, :, -1:].T
    parameters = {
        name: nn.Parameter(weight.expand(len(seeds), *weight.shape).clone())
        for name, weight in (("layers.0.weight", hidden), ("layers.1.weight", output))
    }
    net = MLP([DIMENSION, UNITS, 1], bias=False, activation="tanh").double()
    rule = StepRule(net, SquaredLoss("sum"), "real")
    engine, _ = choose_engine("kernel", rule, torch.device("cpu"))
    state = TrainingState(parameters, {}, torch.full((len(seeds),), -1))
    running = engine(rule, state, start.problem.inputs[0])
    rows, labels = torch.arange(EXAMPLES), start.problem.targets.T
    if copies:
        rows, labels = rows.repeat(2), torch.cat([labels + std, labels - std])
    examples = TrainingSet(rows, labels)
    settings = [ReplicaSettings(seed, GaussianNoise(0.0 if copies else std), lr) for seed in seeds]
    stream = BatchStream([examples] * len(seeds), settings, "replacement", 1, None, LearningRate(None))
    taken, found = 0, []
    for stop in stops:
        while taken < stop:
            count = min(stop - taken, _EXAMPLES_AT_ONCE // len(seeds))
            running.run(stream.draw(taken, count))
            taken += count
        now = torch.cat([parameters["layers.0.weight"], parameters["layers.1.weight"].mT], -1)
        found.append((now.detach() - start.weights).flatten(1))
    return torch.stack(found)


def steps_to_end(lr: float) -> int:
    """Return the number of steps T up to `END`."""
    return round(END / (lr * STD) ** 2)
