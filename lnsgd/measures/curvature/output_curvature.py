"""Second derivatives of the loss by the outputs of every example, and their square roots, in the form that they have.

The loss of an example with many outputs, such as a class for each pixel, usually is a sum over positions, so that its
second derivatives are a block for each position. The form is not declared: it is found by products of the matrix with
vectors, and a product with a random vector verifies it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

# Up to so many numbers for each example, the whole matrix is formed, whatever its form is.
SMALL = 64

# A form is verified if it gives a product with a random vector up to this many machine epsilons.
_ROUNDINGS = 1000


@dataclass(frozen=True)
class Form:
    """A form of the matrix ∇²ℓ_i of an example whose outputs have the shape (d_1, …, d_k).

    Attributes:
        kind: ``diagonal``; ``softmax``: w(diag p − ppᵀ) along an axis with probabilities p, of which the outputs are
            the logits or log-probabilities, at each position; ``block``: any matrix along an axis at each position;
            ``whole``: any matrix.
        axis: The axis of softmax and block, 0 for the first one after the examples.
    """

    kind: Literal["diagonal", "softmax", "block", "whole"]
    axis: int = 0


WHOLE = Form("whole")


def forms(shape: Sequence[int]) -> list[Form]:
    """Return the possible forms for outputs of one example, the cheapest first.

    Args:
        shape: (d_1, …, d_k).
    """
    if prod(shape) <= SMALL:
        return [WHOLE]
    axes = sorted((k for k in range(len(shape)) if shape[k] > 1), key=lambda k: shape[k])
    blocks = [Form("block", k) for k in axes if shape[k] < prod(shape)]
    return [Form("diagonal"), *(Form("softmax", k) for k in axes), *blocks, WHOLE]


def block_size(form: Form, shape: Sequence[int]) -> int:
    """Return the size of the matrices that are formed and decomposed, 1 if none are.

    Args:
        form: The form.
        shape: Shape of the outputs of one example.
    """
    return {"block": shape[form.axis] if shape else 1, "whole": prod(shape)}.get(form.kind, 1)


class OutputCurvature:
    """∇²ℓ_i by the outputs z_i of every example i, through products.

    Args:
        losses: ℓ, shape (B,).
        edges: Where z is in the autograd graph. The rows of z_i are r·i, …, r·i + r − 1; mostly r is one.
        outputs: The outputs of the network, which are logits, probabilities or log-probabilities of a softmax, if there
            is one.

    Attributes:
        shape: Shape of z_i. If there are several edges, z_i is flat.
        size: Numbers in z_i.
        edges: Where z is in the autograd graph.
        slopes: ∂ℓ/∂z for each edge.
        scale: Largest entry of the products that verified a form so far.
    """

    def __init__(self, losses: Tensor, edges: Sequence[GradientEdge], outputs: Tensor) -> None:
        self.edges = list(edges)
        self._examples = len(losses)
        self._outputs = outputs.detach()
        self._is_finite = bool(losses.isfinite().all())
        found: Sequence[Tensor | None] = [None] * len(edges)
        if losses.requires_grad and self._is_finite:
            found = torch.autograd.grad(losses.sum(), self.edges, create_graph=True, allow_unused=True)
        if any(slope is None for slope in found):  # which still must have their shapes
            of_sum = torch.autograd.grad(outputs.sum(), self.edges, retain_graph=True)
            found = [torch.zeros_like(o) if slope is None else slope for o, slope in zip(of_sum, found)]
        self.slopes: list[Tensor] = list(found)  # type: ignore[arg-type]
        self.size = sum(slope.numel() for slope in self.slopes) // len(losses)
        one = self.slopes[0]
        rows = len(one) // len(losses)
        of_example = (*([rows] if rows > 1 else []), *one.shape[1:])
        self.shape = of_example if len(self.slopes) == 1 else (self.size,)
        self.scale = 0.0

    def parts(self, flat: Tensor) -> list[Tensor]:
        """Split numbers for z, shape (B, size), into those for each edge, in its shape."""
        parts = flat.split([slope.numel() // self._examples for slope in self.slopes], dim=1)
        return [part.reshape(slope.shape) for part, slope in zip(parts, self.slopes)]

    def product(self, vectors: Tensor) -> Tensor:
        """Compute ∇²ℓ_i·v_i of every example, shape (B, size); NaN if a loss is not finite."""
        if not self._is_finite:
            return torch.full_like(vectors, torch.nan)
        moving = [k for k, slope in enumerate(self.slopes) if slope.requires_grad]
        if not moving:
            return torch.zeros_like(vectors)
        parts = self.parts(vectors)
        slopes, along = [self.slopes[k] for k in moving], [parts[k] for k in moving]
        found = torch.autograd.grad(slopes, self.edges, along, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(slope) if f is None else f for f, slope in zip(found, self.slopes)]
        return torch.cat([part.reshape(self._examples, -1) for part in filled], dim=1)

    def root(self, form: Form, scale: float = 0.0) -> "Root | None":
        """Return the square root of ∇²ℓ_i in a form; ``None`` if the matrix does not have this form.

        Args:
            form: The form.
            scale: Size of the products for other examples, to which rounding is relative if it is larger: an example
                that is classified with certainty has no more than rounding.
        """
        probe = torch.randn(self.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        vectors = probe.to(self.slopes[0]).expand(self._examples, -1)
        true = self.product(vectors)
        if not true.isfinite().all():
            return Root(lambda signs: torch.full_like(signs, torch.nan), None)
        makers = {"diagonal": self._diagonal, "softmax": self._softmax, "block": self._blocks, "whole": self._blocks}
        found = makers[form.kind](form, vectors, true)
        if found is None or form == WHOLE:
            return found and found[0]
        root, same = found
        self.scale = max(scale, true.abs().max().item())
        allowed = _ROUNDINGS * torch.finfo(true.dtype).eps * self.scale
        return root if (same - true).abs().max().item() <= allowed else None

    def _to_positions(self, flat: Tensor, form: Form) -> Tensor:
        """Lay out (B, size) as (B, positions, c), c the axis of the form."""
        if form.kind == "whole":
            return flat.unsqueeze(1)
        laid = flat.view(self._examples, *self.shape).movedim(form.axis + 1, -1)
        return laid.reshape(self._examples, -1, self.shape[form.axis])

    def _to_flat(self, positions: Tensor, form: Form) -> Tensor:
        if form.kind == "whole":
            return positions.squeeze(1)
        others = [size for k, size in enumerate(self.shape) if k != form.axis]
        laid = positions.reshape(self._examples, *others, self.shape[form.axis])
        return laid.movedim(-1, form.axis + 1).reshape(self._examples, -1)

    def _diagonal(self, form: Form, vectors: Tensor, true: Tensor) -> "tuple[Root, Tensor]":
        entries = self.product(torch.ones_like(vectors))
        positive, negative = entries.clamp(min=0).sqrt(), (-entries).clamp(min=0).sqrt()
        minus = (lambda signs: negative * signs) if (entries < 0).any() else None
        return Root(lambda signs: positive * signs, minus), entries * vectors

    def _softmax(self, form: Form, vectors: Tensor, true: Tensor) -> "tuple[Root, Tensor] | None":
        """Use that diag p − ppᵀ = RRᵀ with R = diag √p − p√pᵀ, so that no matrix is formed."""
        if self._outputs.numel() != true.numel():
            return None
        logits = self._to_positions(self._outputs.reshape(self._examples, -1), form)
        are_probabilities = (logits >= 0).all() and ((logits.sum(-1) - 1).abs() < 1e-3).all()
        p = logits if are_probabilities else logits.softmax(-1)
        v = self._to_positions(vectors, form)
        of_one = p * (v - (p * v).sum(-1, keepdim=True))
        squares = of_one.square().sum(-1, keepdim=True)
        weight = (of_one * self._to_positions(true, form)).sum(-1, keepdim=True) / squares
        weight = weight.where(squares > 0, 0.0).clamp(min=0)

        def root(signs: Tensor) -> Tensor:
            half = p.sqrt() * self._to_positions(signs, form)
            return self._to_flat(weight.sqrt() * (half - p * half.sum(-1, keepdim=True)), form)

        return Root(root, None), self._to_flat(weight * of_one, form)

    def _blocks(self, form: Form, vectors: Tensor, true: Tensor) -> "tuple[Root, Tensor]":
        """Form the blocks by one product for each number of the axis, which all positions share."""
        size = block_size(form, self.shape)
        unit = self._to_positions(torch.zeros_like(vectors), form).clone()
        columns = []
        for k in range(size):
            unit[..., k] = 1
            columns.append(self._to_positions(self.product(self._to_flat(unit, form)), form))
            unit[..., k] = 0
        blocks = torch.stack(columns, dim=-1)
        blocks = (blocks + blocks.mT) / 2
        positive, negative = symmetric_roots(blocks)

        def times(matrices: Tensor, signs: Tensor) -> Tensor:
            return self._to_flat((matrices @ self._to_positions(signs, form).unsqueeze(-1)).squeeze(-1), form)

        minus = None if negative is None else lambda signs: times(negative, signs)
        return Root(lambda signs: times(positive, signs), minus), times(blocks, vectors)


@dataclass(frozen=True)
class Root:
    """Functions R and Q of numbers for z, shape (B, size), with ∇²ℓ_i = RRᵀ − QQᵀ.

    Attributes:
        positive: R.
        negative: Q, or ``None`` if the losses are convex in the outputs of all examples.
    """

    positive: Callable[[Tensor], Tensor]
    negative: Callable[[Tensor], Tensor] | None


def symmetric_roots(matrices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute the symmetric roots of the positive and of the negative part of symmetric matrices.

    S = P² − N² with symmetric P, N ≥ 0 and PN = 0. Unlike eigenvectors, whose signs are arbitrary and which turn where
    eigenvalues are close, these roots are unique and continuous in S, so that the same random probes give the same
    estimate for networks that differ by rounding only.

    Args:
        matrices: S, shape (B, …, C, C), finite.

    Returns:
        P in the same shape, and N, or ``None`` if no matrix has a negative eigenvalue.
    """
    values, vectors = torch.linalg.eigh(matrices.double())
    # An eigenvalue this much smaller than the largest one is rounding. Below zero the largest one of all examples
    # counts: differences such as p − p² round alike for examples with hardly any curvature, and a single negative
    # eigenvalue would cost a pass of its own.
    rounding = torch.finfo(matrices.dtype).eps * values.abs()
    values = values.where(
        (values > rounding.amax(-1, keepdim=True)) | (values < -values.shape[-1] * rounding.amax()), 0.0
    )

    def root(eigenvalues: Tensor) -> Tensor:
        return (vectors * eigenvalues.sqrt().unsqueeze(-2) @ vectors.mT).to(matrices)

    return root(values.clamp(min=0)), root((-values).clamp(min=0)) if (values < 0).any() else None
