"""The density of the eigenvalues of the Hessian."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.lanczos import Krylov
from lnsgd.measures.curvature.problem import Problem, differentiating
from lnsgd.measures.curvature.products import check_products, rademacher
from lnsgd.measures.estimate import Estimate
from lnsgd.measures.evaluation import WHOLE, LossFunction, Share
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of
from lnsgd.measures.report import Report

# Probes run side by side as long as their bases have no more numbers than this, half a GiB.
_ENTRIES = 2**26


@dataclass(frozen=True)
class SpectralQuadrature:
    """Quadratures of the density φ(t) = (1/P)Σ_j δ(t − λ_j) of the P eigenvalues, one by each of K probes.

    Attributes:
        nodes: Shape (K, M), float64 on the CPU. The outermost nodes are close to the outermost eigenvalues.
        weights: Shape (K, M); the weights of a probe sum to one. Weights of 0 fill up probes of fewer than M nodes.
        parameters: Number P of parameters and so of eigenvalues.
        samples: Number of examples.
    """

    nodes: Tensor
    weights: Tensor
    parameters: int
    samples: int

    def integral(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """Estimate ∫ f(t) φ(t) dt = Tr f(H) / P with its standard error over the probes.

        The estimate is unbiased if f is a polynomial of degree below 2M. Otherwise the quadrature has an error of its
        own, which falls exponentially in M if f is analytic (Ubaru, Chen and Saad, 2017). If a few eigenvalues make
        most of the trace, the estimate is skewed, and 1.96 standard errors of 8 probes cover 80 to 90 %, not 95 %.

        Args:
            function: f, which takes tensors of any shape, entry by entry.
        """
        values = function(self.nodes).where(self.weights > 0, 0.0)
        return Estimate.from_probes((self.weights * values).sum(1), self.samples)

    def density(self, grid: Tensor, width: float | None = None) -> Tensor:
        """Compute φ smoothed by a Gaussian, Σ_k w_k N(t; t_k, width²), as the mean over probes; it integrates to one.

        Args:
            grid: Values t, shape (G,).
            width: Standard deviation of the Gaussian; by default a hundredth of the nodes' range (if all nodes are
                the same, of their size; if they are zero, of one).

        Returns:
            Shape (G,), float64.

        Raises:
            ValueError: a width that is not positive.
        """
        width = self.checked_width(width)
        distances = (grid.double().cpu()[:, None] - self.nodes[self.weights > 0]) / width
        bells = (-distances.square() / 2).exp() / (width * sqrt(2 * pi))
        return bells @ self.weights[self.weights > 0] / len(self.weights)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest node."""
        real = self.nodes[self.weights > 0]
        return real.min().item(), real.max().item()

    def checked_width(self, width: float | None) -> float:
        """Return a width of the smoothing, the default for ``None``.

        Raises:
            ValueError: it is not positive.
        """
        low, high = self.range
        width = (high - low or abs(high) or 1.0) / 100 if width is None else width
        if not width > 0:
            raise ValueError(f"width = {width}; the standard deviation of the Gaussian must be > 0")
        return width


def spectral_density(
    model: nn.Module,
    loss: LossFunction,
    data: Batches,
    *,
    probes: int = 8,
    steps: int = 50,
    generator: torch.Generator | None = None,
    share: Share = WHOLE,
    outputs: OutputsFunction = outputs_of,
    report: Report | None = None,
) -> SpectralQuadrature:
    """Estimate the density of the eigenvalues of ∇²L, L the *mean* loss over the data, with the model in eval mode.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017; for networks Ghorbani, Krishnan and Xiao, 2019): for a
    random sign vector v, M steps of Lanczos from v/√P give a tridiagonal T; its eigenvalues are the nodes, the
    squared first entries of its eigenvectors the weights, with Σ_k w_k f(t_k) ≈ vᵀf(H)v/P, whose mean is Tr f(H)/P.
    The basis is kept orthogonal, so that no eigenvalue comes twice. It costs probes·steps Hessian products, and
    memory for ``steps`` float64 vectors of the size of θ; probes run side by side as far as half a GiB allows. On
    several processes products are summed, P numbers each.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs; or a loss of
            each label, in the labels' shape, whose mean is over the labels of all examples.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated.
        probes: Number K of random vectors.
        steps: Number M of nodes of each; at most the number of parameters.
        generator: CPU generator of the probes; by default one seeded with 0.
        share: This process's share of the data, if several processes take the measure together; their generators must
            give the same numbers.
        outputs: How the network is called, ``outputs(network, inputs) -> (B, …)``, see `lnsgd.measures.outputs_of`.
        report: Is told the progress, and announces a computation that takes long, see `lnsgd.measures.Report`.

    Raises:
        ValueError: fewer than one probe or step, no examples, data that can be read only once, no trainable
            parameter, outputs that are not floating point, a loss that is not per example, or operations whose second
            derivatives are missing or wrong.
        NonFiniteError: a loss or derivative is NaN or infinite.

    Example:
        >>> from lnsgd.losses import SquaredLoss
        >>> net = nn.Linear(2, 1, bias=False)  # its Hessian is the diagonal matrix of 1 and 4
        >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))]
        >>> found = spectral_density(net, SquaredLoss(), data)
        >>> [round(node, 4) for node in found.range], round(found.integral(lambda t: t).value, 4)
        ([1.0, 4.0], 2.5)
    """
    for name, value in (("probes", probes), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} = {value}; at least 1 is needed")
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        problem = Problem(model, loss, data, share, outputs, report or Report("spectral_density"))
        check_products(problem)
        steps = min(steps, problem.size)
        problem.expect(probes * steps)
        together = max(1, _ENTRIES // (steps * problem.size))
        found = [
            _quadrature(problem, rademacher(problem, min(together, probes - done), generator), steps)
            for done in range(0, probes, together)
        ]
    nodes, weights = (torch.cat(parts) for parts in zip(*((nodes, weights) for nodes, weights, _ in found)))
    return SpectralQuadrature(nodes, weights, problem.size, found[0][2])


def _quadrature(problem: Problem, starts: Tensor, steps: int) -> tuple[Tensor, Tensor, int]:
    """Compute nodes and weights (K, steps) of start vectors (K, P), and the number of examples."""
    krylov = Krylov(problem, starts.unsqueeze(1), steps)
    while krylov.has_room and krylov.grow():
        pass
    values, vectors = torch.linalg.eigh(krylov.projected)
    # A space that has stopped growing has zeros in T, whose eigenvectors have no part in the first vector.
    padding = (0, steps - krylov.size)
    nodes, weights = (nn.functional.pad(t, padding).cpu() for t in (values, vectors[:, 0].square()))
    return nodes, weights, krylov.samples
