"""Label-noise SGD from given weights with zero error: what `lnsgd.figures.blanc_escape` computes its numbers from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd import rng
from lnsgd.label_noise import GaussianNoise
from lnsgd.losses import SquaredLoss
from lnsgd.measures import TanhNetwork, projected_flow
from lnsgd.models import MLP
from lnsgd.replicas import Feed, LearningRate, Recipe, ReplicaData, ReplicaSettings, State, choose_engine

# Tanh units, inputs on the unit circle: 18 weights, of which three examples leave 15 directions flat.
DIMENSION, UNITS, EXAMPLES = 2, 6, 3

# Standard deviation of the noise.
STD = 0.1

# s at the end, and how often it is looked at on the way.
END, LOOKS = 0.03, 6

# Instances are drawn anew until steep directions are steep at θ* and at the stationary point that the flow reaches
# from there: the smallest eigenvalue of mean ∇h∇hᵀ on them is at least so large.
STEEP, STILL_STEEP = 0.05, 0.02
# What is left of ‖P_T ∇R‖ at a stationary point, and where to look for one.
LEFT, FAR = 1e-4, 500.0

_EXAMPLES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Start:
    """Where runs start from.

    Attributes:
        problem: The examples.
        weights: θ*, (1, H, d + 1).
    """

    problem: TanhNetwork
    weights: Tensor

    @property
    def steep(self) -> Tensor:
        """∇h(x_i), which span the steep directions, (n, P)."""
        return self.problem.jacobian(self.weights)[0].flatten(1)

    @property
    def smallest_eigenvalue(self) -> float:
        """That of mean ∇h∇hᵀ on the steep directions."""
        return float(torch.linalg.eigvalsh(self.steep @ self.steep.T)[0]) / len(self.steep)

    def flat_part(self, directions: Tensor) -> Tensor:
        """P_T of directions (…, P)."""
        basis = torch.linalg.qr(self.steep.T)[0]
        return directions - directions @ basis @ basis.T

    @property
    def drift(self) -> Tensor:
        """−P_T ∇R, (P,)."""
        return -self.flat_part(self.problem.regularizer_gradient(self.weights).flatten())

    def flowed(self, times: Sequence[float]) -> Tensor:
        """Where the flow is at times s, (T, 1, H, d + 1)."""
        return projected_flow(self.problem, self.weights, times)


def instance(seed: int) -> tuple[Start, Start]:
    """A random network with the labels that it gives to random points, and a stationary point of R from there.

    All weights are N(0, 1).
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
    """θ − θ* of a run for each seed, after equal parts of the way to `END`, (LOOKS, R, P)."""
    hidden, output = start.weights[0, :, :-1], start.weights[0, :, -1:].T
    parameters = {
        name: nn.Parameter(weight.expand(len(seeds), *weight.shape).clone())
        for name, weight in (("layers.0.weight", hidden), ("layers.1.weight", output))
    }
    net = MLP([DIMENSION, UNITS, 1], bias=False, activation="tanh").double()
    recipe = Recipe(net, SquaredLoss("sum"), "real")
    engine, _ = choose_engine("kernel", recipe, torch.device("cpu"))
    state = State(parameters, {}, torch.full((len(seeds),), -1))
    running = engine(recipe, state, start.problem.inputs[0])
    examples = ReplicaData(torch.arange(EXAMPLES), start.problem.targets.T)
    settings = [ReplicaSettings(seed, GaussianNoise(STD), lr) for seed in seeds]
    feed = Feed([examples] * len(seeds), settings, "replacement", 1, None, LearningRate(None))
    taken, found = 0, []
    for look in range(1, LOOKS + 1):
        while taken < (stop := round(steps_to_end(lr) * look / LOOKS)):
            count = min(stop - taken, _EXAMPLES_AT_ONCE // len(seeds))
            running.run(feed.chunk(taken, count))
            taken += count
        now = torch.cat([parameters["layers.0.weight"], parameters["layers.1.weight"].mT], -1)
        found.append((now.detach() - start.weights).flatten(1))
    return torch.stack(found)


def steps_to_end(lr: float) -> int:
    """T."""
    return round(END / (lr * STD) ** 2)
