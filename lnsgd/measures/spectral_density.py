"""How the eigenvalues of the Hessian are distributed."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lnsgd.measures.curvature.lanczos import Krylov
from lnsgd.measures.curvature.problem import Batches, LossFunction, Problem, Share, differentiating
from lnsgd.measures.curvature.products import rademacher
from lnsgd.measures.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Probes run side by side as long as their bases have no more numbers than this, half a GiB.
_ENTRIES = 2**26


@dataclass(frozen=True)
class SpectralDensity:
    """A quadrature of the density φ(t) = (1/P)Σ_j δ(t − λ_j) of the P eigenvalues, by each of K probes.

    Attributes:
        nodes: (K, M), float64 on the CPU. The outermost are close to the outermost eigenvalues.
        weights: (K, M), those of a probe sum to one. Zero where a probe needs fewer nodes than M.
        parameters: P, their number.
        samples: Number of examples.
    """

    nodes: Tensor
    weights: Tensor
    parameters: int
    samples: int

    def integral(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """∫ f(t) φ(t) dt = Tr f(H) / P with its standard error over the probes.

        Unbiased where f is a polynomial of degree below 2M; else the quadrature has an error of its own, that falls
        exponentially in M where f is analytic (Ubaru, Chen and Saad, 2017). A few eigenvalues that make
        most of the trace make it skewed, and 1.96 standard errors of 8 probes then cover 80 to 90 %, not 95 %.

        Args:
            function: f, of tensors of any shape, entry by entry.
        """
        values = function(self.nodes).where(self.weights > 0, 0.0)
        return Estimate.from_probes((self.weights * values).sum(1), self.samples)

    def density(self, grid: Tensor, width: float | None = None) -> Tensor:
        """φ smoothed by a Gaussian, mean over probes: Σ_k w_k N(t; t_k, width²). Its integral over all t is one.

        Args:
            grid: t, (G,).
            width: Standard deviation of the Gaussian; by default a hundredth of the nodes' range (where they are all
                the same, of their size, or of one).

        Returns:
            (G,), float64.

        Raises:
            ValueError: a width that is not positive.
        """
        width = self._checked(width)
        distances = (grid.double().cpu()[:, None] - self.nodes[self.weights > 0]) / width
        bells = (-distances.square() / 2).exp() / (width * sqrt(2 * pi))
        return bells @ self.weights[self.weights > 0] / len(self.weights)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest node."""
        real = self.nodes[self.weights > 0]
        return real.min().item(), real.max().item()

    def _checked(self, width: float | None) -> float:
        low, high = self.range
        width = (high - low or abs(high) or 1.0) / 100 if width is None else width
        if not width > 0:
            raise ValueError(f"width = {width}; the standard deviation of the Gaussian must be > 0")
        return width

    def plot(self, top: Tensor | None = None, width: float | None = None) -> "Figure":
        """The smoothed density on a logarithmic axis, down to a tenth of what a single eigenvalue makes.

        Args:
            top: Largest eigenvalues, (count,), as from `lnsgd.measures.top_eigenvalues`; each is marked at the height
                of a single one.
            width: See `density`.

        Raises:
            ValueError: a width that is not positive.
        """
        width = self._checked(width)
        (low, high), single = self.range, 1 / (self.parameters * width * sqrt(2 * pi))
        grid = torch.linspace(low - 4 * width, high + 4 * width, 2000, dtype=torch.float64)
        return _draw(grid, self.density(grid, width), single, width, top)


def spectral_density(
    model: nn.Module,
    loss: LossFunction,
    data: Batches,
    *,
    probes: int = 8,
    steps: int = 50,
    generator: torch.Generator | None = None,
    share: Share = Share(),  # noqa: B008
) -> SpectralDensity:
    """Density of the eigenvalues of ∇²L, L the *mean* loss over the data, model in eval mode.

    Stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017; for networks Ghorbani, Krishnan and Xiao, 2019): for a
    random sign vector v, M steps of Lanczos from v/√P give a tridiagonal T; its eigenvalues are the nodes, the
    squared first entries of its eigenvectors the weights, with Σ_k w_k f(t_k) ≈ vᵀf(H)v/P, whose mean is Tr f(H)/P.
    The basis is kept orthogonal, so no eigenvalue comes twice. It costs probes·steps Hessian products, and memory
    for ``steps`` float64 vectors of the size of θ; where more fit into half a GiB, probes run side by side. On several
    processes products are summed, P numbers each.

    Args:
        model: Any module. Its weights, buffers, ``.grad``, modes and random state stay as they are.
        loss: Per-example loss, ``loss(outputs, labels) -> (B,)``, twice differentiable in the outputs.
        data: Batches (inputs, labels) on the model's device, the same whenever they are iterated.
        probes: K, number of random vectors.
        steps: M, number of nodes for each; fewer where there are fewer parameters.
        generator: CPU generator of the probes; seeded with 0 where it is ``None``.
        share: This process's share of the data, where several take it together; their generators must give the same
            numbers.

    Raises:
        ValueError: fewer than one probe or step, no examples, data that can be read only once, no trainable
            parameter, outputs that are not floating point, or a loss that is not per example.
        NonFiniteError: a loss or derivative is NaN or infinite.
    """
    for name, value in (("probes", probes), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} = {value}; at least 1 is needed")
    generator = generator or torch.Generator().manual_seed(0)
    with differentiating(model):
        problem = Problem(model, loss, data, share)
        steps = min(steps, problem.size)
        together = max(1, _ENTRIES // (steps * problem.size))
        found = [
            _quadrature(problem, rademacher(problem, min(together, probes - done), generator), steps)
            for done in range(0, probes, together)
        ]
    nodes, weights = (torch.cat(parts) for parts in zip(*((nodes, weights) for nodes, weights, _ in found)))
    return SpectralDensity(nodes, weights, problem.size, found[0][2])


def _quadrature(problem: Problem, starts: Tensor, steps: int) -> tuple[Tensor, Tensor, int]:
    """Nodes and weights (K, steps) of start vectors (K, P), and the number of examples."""
    krylov = Krylov(problem, starts.unsqueeze(1), steps)
    while krylov.room and krylov.grow():
        pass
    values, vectors = torch.linalg.eigh(krylov.projected)
    # A space that has stopped growing has zeros in T: their eigenvectors have no part in the first vector.
    padding = (0, steps - krylov.size)
    nodes, weights = (nn.functional.pad(t, padding).cpu() for t in (values, vectors[:, 0].square()))
    return nodes, weights, krylov.samples


def _draw(grid: Tensor, density: Tensor, single: float, width: float, top: Tensor | None) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.fill_between(grid, density, single / 100, color="0.8", linewidth=0)
    axis.plot(grid, density, color="0.3", linewidth=1)
    if top is not None:
        label = f"the {len(top)} largest" if len(top) > 1 else "the largest"
        axis.plot(top, [single] * len(top), "v", color="tab:red", markersize=5, label=label)
        axis.legend(frameon=False)
    axis.set_yscale("log")
    axis.set_ylim(single / 10, 3 * density.max().item())
    axis.set_xlabel("eigenvalue of the Hessian")
    axis.set_ylabel(f"density (Gaussian of width {width:.2g})")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
