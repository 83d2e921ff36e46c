"""The network of 2d neurons that Cornacchia et al. write down for the hypercube problem (§ 6.3), on fresh points."""

from collections.abc import Sequence

import torch

from lnsgd.data import Hypercube
from lnsgd.figures.cornacchia.statements import STATEMENTS
from lnsgd.figures.framework.claims import CONTROL, Claim, judge
from lnsgd.models import MLP

# The paper's output bias, with any d and ε.
PAPER_BIAS = -0.5


def explicit_network(dimension: int, epsilon: float, bias: float = PAPER_BIAS) -> MLP:
    """Build N(x) = Σ_i ReLU(x_i − (1 − ε/2)) + ReLU(−x_i − (1 − ε/2)) + b.

    Args:
        dimension: d.
        epsilon: ε.
        bias: b.

    Example:
        >>> explicit_network(2, 0.3)(torch.tensor([[1.0, 0.0], [0.7, 0.0]])).T
        tensor([[-0.3500, -0.5000]], grad_fn=<PermuteBackward0>)
    """
    net = MLP([dimension, 2 * dimension, 1])
    eye = torch.eye(dimension)
    net.load_state_dict(
        {
            "layers.0.weight": torch.cat([eye, -eye]),
            "layers.0.bias": torch.full((2 * dimension,), -(1 - epsilon / 2)),
            "layers.1.weight": torch.ones(1, 2 * dimension),
            "layers.1.bias": torch.tensor([bias]),
        }
    )
    return net


def typical_active(dimension: int, epsilon: float) -> float:
    """Return the typical number of active neurons on C₁, 1 + (d − 1) ε/2.

    One coordinate of a point is ±1 and activates one neuron. Each other coordinate is uniform in [−1, 1] and exceeds
    1 − ε/2 in modulus with probability ε/2.
    """
    return 1 + (dimension - 1) * epsilon / 2


def measure_explicit(data: Hypercube, bias: float) -> dict[str, float]:
    """Measure the explicit network on the test points of a data set.

    Args:
        data: Points of both cubes; set up here.
        bias: Output bias b.

    Returns:
        The mean number of active neurons on each cube (``active_outer``, ``active_inner``), and the fraction of each
        cube's points that is misclassified (``error_outer``, ``error_inner``).
    """
    points = data.make_splits()["test"]
    net = explicit_network(data.dimension, data.epsilon, bias)
    with torch.no_grad():
        x = points.inputs
        outer = points.labels == 1
        active = (net.layers[0](x) > 0).sum(1).double()
        wrong = ((net(x)[:, 0] > 0) != outer).double()
    return {
        "active_outer": active[outer].mean().item(),
        "active_inner": active[~outer].mean().item(),
        "error_outer": wrong[outer].mean().item(),
        "error_inner": wrong[~outer].mean().item(),
    }


def judge_explicit(
    seeds: Sequence[int], dimension: int, epsilon: float, test_size: int, relative: float
) -> list[Claim]:
    """Judge what the paper says of its explicit network.

    Args:
        seeds: Seeds of the points.
        dimension: d.
        epsilon: ε.
        test_size: Number of points of each seed.
        relative: Relative distance from the paper's number of active neurons that counts as reproduced.
    """
    data = [Hypercube(dimension, epsilon, test_size=test_size, seed=seed) for seed in seeds]
    found = [measure_explicit(of_seed, PAPER_BIAS) for of_seed in data]
    shifted = [measure_explicit(of_seed, -epsilon / 4) for of_seed in data]
    paper = dimension * epsilon
    return [
        judge(
            "explicit-active",
            f"explicit network of {2 * dimension} neurons: active neurons on C₁ (mean over fresh points)",
            STATEMENTS["hypercube-explicit"],
            paper=paper,
            measured=[of_seed["active_outer"] for of_seed in found],
            low=paper * (1 - relative),
            high=paper * (1 + relative),
            why=f"One coordinate of a point of C₁ is ±1 and each other one exceeds 1 − ε/2 in modulus with probability "
            f"ε/2, so that 1 + (d − 1) ε/2 = {typical_active(dimension, epsilon):.3g} neurons are active.",
        ),
        judge(
            "explicit-silent",
            "explicit network: active neurons on C₋₁ (mean over fresh points)",
            STATEMENTS["hypercube-explicit-silent"],
            paper=0.0,
            measured=[of_seed["active_inner"] for of_seed in found],
            high=0.0,
            deterministic=True,
        ),
        judge(
            "explicit-represents",
            f"explicit network with b = −{-PAPER_BIAS} computes the function (fraction of C₁ that is misclassified)",
            STATEMENTS["hypercube-explicit-represents"],
            paper=0.0,
            measured=[of_seed["error_outer"] for of_seed in found],
            high=0.0,
            deterministic=True,
            why=f"A point of C₁ whose neurons sum to less than {-PAPER_BIAS} is misclassified, and they may sum to as "
            f"little as ε/2 = {epsilon / 2:g}; any b between −ε/2 and 0 represents the function.",
        ),
        judge(
            "explicit-with-smaller-bias",
            "explicit network with b = −ε/4 instead computes the function (fraction that is misclassified, both cubes)",
            CONTROL,
            source="derived: on C₁ the neurons sum to at least ε/2, and on C₋₁ to 0",
            measured=[of_seed["error_outer"] + of_seed["error_inner"] for of_seed in shifted],
            high=0.0,
            deterministic=True,
        ),
    ]
