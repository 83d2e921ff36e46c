"""What each measure of the matrix must give, computed on its own: plain loops, a dense Hessian, NumPy and SciPy."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.matrix.matrix_networks import CLASSES, Kind

# Settings of the measures that are compared.
MARGIN, THRESHOLD, CLUSTER_TOLERANCE = 0.1, 1.5, 0.4

Numbers = dict[tuple[str, str], float]
"""Values by measure and layer."""


class Trained(NamedTuple):
    """A network after training, as its weights are then.

    Attributes:
        kind: Its kind.
        net: The network, not compiled.
        init: Its initial weights by name.
        frozen: Names of weights that do not need a gradient.
    """

    kind: Kind
    net: nn.Module
    init: Mapping[str, Tensor]
    frozen: frozenset[str] = frozenset()


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy of each example, (B,), the mean over its tokens if it has several."""
    values = F.cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
    return values.view(len(labels), -1).mean(1)


class Expected:
    """The expected numbers of each measure, by its name.

    Args:
        trained: The network.
        autocast: Number format of the forward passes in which outputs and firings are measured, if not the network's.
    """

    def __init__(self, trained: Trained, autocast: torch.dtype | None = None) -> None:
        self.trained = trained
        self.net = copy.deepcopy(trained.net).eval()
        self.inputs, self.labels = trained.kind.data()
        self.weights = {n: p.detach() for n, p in self.net.named_parameters() if n not in trained.frozen}
        self.calls: dict[str, list[Tensor]] = {site: [] for site in trained.kind.sites}
        modules = dict(self.net.named_modules())
        for site, seen in self.calls.items():
            modules[site].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].detach().clone()))
        with torch.no_grad(), torch.autocast("cpu", autocast, enabled=autocast is not None):
            rows = [trained.kind.outputs(self.net(x[None])) for x in self.inputs]
        self.outputs = torch.cat(rows).double()
        self.fired = {site: (torch.cat(seen).flatten(1) > 0).numpy() for site, seen in self.calls.items()}

    def performance(self) -> Numbers:
        loss = losses(self.outputs, self.labels).mean().item()
        return {("loss", ""): loss, ("error", ""): (self.outputs.argmax(-1) != self.labels).double().mean().item()}

    def margin(self) -> Numbers:
        margins = []
        for row, label in zip(self.outputs.flatten(0, -2).tolist(), self.labels.flatten().tolist()):
            margins.append(row[label] - max(value for c, value in enumerate(row) if c != label))
        fraction = sum(m >= MARGIN for m in margins) / len(margins)
        return {("margin_fraction", ""): fraction, ("margin_median", ""): float(np.median(margins))}

    def largest_output(self) -> Numbers:
        return {("largest_output", ""): max(abs(value) for value in self.outputs.flatten().tolist())}

    def active_neurons(self) -> Numbers:
        return {("active_count", site): fired.sum(1).mean() for site, fired in self.fired.items()}

    def dead_neurons(self) -> Numbers:
        return {("dead_count", site): float((~fired.any(0)).sum()) for site, fired in self.fired.items()}

    def class_association(self) -> Numbers:
        found = {}
        for site, fired in self.fired.items():
            counts = np.array([fired[self.labels.numpy() == c].sum(0) for c in range(CLASSES)])
            second, first = np.sort(counts, axis=0)[-2:]
            found["associated_count", site] = float(((first > 0) & (first >= THRESHOLD * second)).sum())
        return found

    def distance_from_init(self) -> Numbers:
        squares = {
            name: ((p.detach().double() - self.trained.init[name].double()) ** 2).sum().item()
            for name, p in self.net.named_parameters()
        }
        return {("distance_from_init", ""): sum(squares.values()) ** 0.5}

    def weight_norms(self) -> Numbers:
        return {
            ("norm", name): float(p.detach().double().square().sum()) ** 0.5 for name, p in self.net.named_parameters()
        }

    def singular_values(self) -> Numbers:
        matrices = {name: p.double().numpy() for name, p in self.weights.items() if p.ndim == 2}
        return {("singular_value_1", name): float(np.linalg.svd(m)[1][0]) for name, m in matrices.items()}

    def cluster_count(self) -> Numbers:
        matrices = {name: p.double().numpy() for name, p in self.weights.items() if p.ndim == 2}
        return {
            ("cluster_count", name): float(fcluster(linkage(m, "single"), CLUSTER_TOLERANCE, "distance").max())
            for name, m in matrices.items()
        }

    def gradient_norm(self) -> Numbers:
        gradients = torch.autograd.grad(self._mean_loss(self._flat()), self._leaf)
        return {("gradient_norm", ""): gradients[0].norm().item()}

    def implicit_regularizer(self) -> Numbers:
        jacobian = torch.autograd.functional.jacobian(lambda flat: self._outputs(flat).flatten(), self._flat())
        return {("implicit_regularizer", ""): jacobian.square().sum().item() / len(self.inputs)}

    def hessian_trace(self) -> Numbers:
        return {("hessian_trace", ""): self.hessian().diagonal().sum().item()}

    def top_eigenvalues(self) -> Numbers:
        return {("top_eigenvalue_1", ""): torch.linalg.eigvalsh(self.hessian())[-1].item()}

    def spectral_density(self) -> Numbers:
        return {("spectrum_trace", ""): self.hessian().diagonal().sum().item()}

    def hessian(self) -> Tensor:
        """Compute the dense Hessian in float64, once."""
        if not hasattr(self, "_hessian"):
            with sdpa_kernel(SDPBackend.MATH):
                self._hessian = torch.autograd.functional.hessian(self._mean_loss, self._flat(), vectorize=True)
        return self._hessian

    def _flat(self) -> Tensor:
        self._double = copy.deepcopy(self.trained.net).eval().double()
        self._leaf = torch.cat([p.double().flatten() for p in self.weights.values()]).requires_grad_()
        return self._leaf

    def _outputs(self, flat: Tensor) -> Tensor:
        sizes = [p.numel() for p in self.weights.values()]
        weights = {name: part.view_as(p) for part, (name, p) in zip(flat.split(sizes), self.weights.items())}
        inputs = self.inputs.double() if self.inputs.is_floating_point() else self.inputs
        with sdpa_kernel(SDPBackend.MATH):
            return self.trained.kind.outputs(torch.func.functional_call(self._double, weights, (inputs,)))

    def _mean_loss(self, flat: Tensor) -> Tensor:
        return losses(self._outputs(flat), self.labels).mean()
