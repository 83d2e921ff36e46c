"""Similarity of two representations: linear centered kernel alignment (CKA)."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from math import isfinite, nan, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, call_network, outputs_of
from lnsgd.measures.precision import as_real


class CKA(NamedTuple):
    """Linear CKA of the features X and Y of the same examples in two networks.

    Attributes:
        biased: HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)) with K = XXᵀ, L = YYᵀ and the biased estimator tr(KHLH) / (n−1)²
            (Kornblith et al., 2019, eq. 3 and 4), which is ‖YᵀX‖² / (‖XᵀX‖·‖YᵀY‖) for centered features; in [0, 1].
            With fewer examples than features it is close to 1 even if the features are independent.
        unbiased: This ratio with the unbiased estimator of HSIC (Song et al., 2012, eq. 5; Nguyen et al., 2021), which
            is close to 0 for independent features and may be below 0; NaN for fewer than four examples.
    """

    biased: float
    unbiased: float


class FeatureMoments:
    """Sums over examples from which CKA is computed, so that only one batch of features is kept at a time.

    They are (p + q)² numbers in float64 for p and q features, whatever the number of examples. A shift of the features
    changes neither estimator; features are shifted by the mean of the first batch, to avoid cancellation.
    """

    def __init__(self) -> None:
        self.examples = 0
        self._shifts: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add features of the same examples.

        Args:
            first: Features in the first network, shape (B, …).
            second: Features in the second network, shape (B, …).

        Raises:
            ValueError: the numbers of examples differ.
        """
        if len(first) != len(second):
            raise ValueError(
                f"features of {len(first)} and of {len(second)} examples; give features of the same examples"
            )
        pair = [as_real(features.detach()).double() for features in (first, second)]
        if not self._shifts:
            self._shifts = [features.mean(0) for features in pair]
        x, y = (features - shift for features, shift in zip(pair, self._shifts))
        x_norms, y_norms = x.square().sum(1), y.square().sum(1)
        added = {
            "xx": x.T @ x,
            "yy": y.T @ y,
            "xy": x.T @ y,
            "x": x.sum(0),
            "y": y.sum(0),
            "x_norms": x_norms.sum(),
            "y_norms": y_norms.sum(),
            "xx_norms": x_norms.square().sum(),
            "yy_norms": y_norms.square().sum(),
            "xy_norms": (x_norms * y_norms).sum(),
            "x_of_xx": x_norms @ x,
            "x_of_yy": y_norms @ x,
            "y_of_xx": x_norms @ y,
            "y_of_yy": y_norms @ y,
        }
        self._sums = {name: self._sums.get(name, 0) + value for name, value in added.items()}
        self.examples += len(x)

    def cka(self) -> CKA:
        """Compute the CKA of all examples so far; NaN if the features of a network do not vary.

        Raises:
            ValueError: no examples.
        """
        if not self.examples:
            raise ValueError("no examples to compare features on; the data is empty")
        pairs = (("x", "y"), ("x", "x"), ("y", "y"))
        return CKA(_ratio(*(self._biased(*p) for p in pairs)), _ratio(*(self._unbiased(*p) for p in pairs)))

    def _biased(self, a: str, b: str) -> float:
        """Compute ‖aᵀb‖² of centered features."""
        s = self._sums
        return (s[a + b] - torch.outer(s[a], s[b]) / self.examples).square().sum().item()

    def _unbiased(self, a: str, b: str) -> float:
        """Compute n(n−3)·HSIC, unbiased: tr K̃L̃ + 1ᵀK̃1·1ᵀL̃1 / ((n−1)(n−2)) − 2·1ᵀK̃L̃1 / (n−2); ~: zero diagonal."""
        n, s = self.examples, self._sums
        if n < 4:
            return nan
        trace = s[a + b].square().sum() - s[f"{a}{b}_norms"]
        totals = [s[one] @ s[one] - s[f"{one}_norms"] for one in (a, b)]
        # Row sums of K̃ are x_i·Σx − ‖x_i‖².
        product = s[a] @ s[a + b] @ s[b] - s[a] @ s[f"{a}_of_{b}{b}"] - s[f"{b}_of_{a}{a}"] @ s[b] + s[f"{a}{b}_norms"]
        return (trace + totals[0] * totals[1] / ((n - 1) * (n - 2)) - 2 * product / (n - 2)).item()


def _ratio(cross: float, first: float, second: float) -> float:
    # The product of the squares may overflow although the product of the roots does not.
    ratio = cross / (sqrt(first) * sqrt(second)) if first > 0 and second > 0 else nan
    return ratio if isfinite(first) and isfinite(second) else nan


def linear_cka(pairs: Iterable[tuple[Tensor, Tensor]]) -> CKA:
    """Compute the linear CKA of features that come batch by batch, see `CKA`.

    Args:
        pairs: Features of the same examples in one network and in the other, shape (B, …) each.

    Raises:
        ValueError: no examples, or batches of different size.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
        >>> round(linear_cka([(x, 3 - x)]).biased, 6)
        1.0
    """
    moments = FeatureMoments()
    for first, second in pairs:
        moments.update(first, second)
    return moments.cka()


def _with_parameters(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in _modules(model).items() if next(m.parameters(recurse=False), None) is not None}


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    # A wrapped module comes after its wrapper, which has the same name, and replaces it.
    return {compat.plain_name(name): module for name, module in model.named_modules()}


def named_module(model: nn.Module, layer: str | None) -> nn.Module | None:
    """Return a module of a model by name.

    Args:
        model: Any module.
        layer: Name of one of its modules, or ``None``.

    Returns:
        The module; ``None`` if no name is given.

    Raises:
        ValueError: there is no such module.
    """
    modules, wanted = _modules(model), None if layer is None else compat.plain_name(layer)
    if wanted is not None and wanted not in modules:
        raise ValueError(f"features = {layer}: there is no such module; choose of {', '.join(_with_parameters(model))}")
    return None if wanted is None else modules[wanted]


def features_before(
    model: nn.Module, layer: str | None, data: Batches, *, outputs: OutputsFunction = outputs_of
) -> Iterator[Tensor]:
    """Yield the inputs of a layer, batch by batch, with the model in eval mode.

    Args:
        model: Any module.
        layer: Name of one of its modules; by default the last module with parameters that a forward pass calls, so that
            its inputs are the penultimate features.
        data: Batches (inputs, labels) on the model's device.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.

    Raises:
        ValueError: there is no such module, or a forward pass does not call it.
    """
    named = named_module(model, layer)
    watched = _with_parameters(model) if named is None else {str(layer): named}
    for name, module in watched.items():
        if compat.is_torchscript(module):
            raise ValueError(
                f"{name or 'the network'} is TorchScript, in which no features can be seen; choose a module outside of "
                "it by features=, or compare the networks before torch.jit.script or torch.jit.trace"
            )
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [inputs[0].detach()]

    for inputs, _ in data:
        with ExitStack() as stack:
            for module in watched.values():
                stack.callback(module.register_forward_pre_hook(keep).remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluation_mode(model))
            call_network(model, inputs, outputs)
        if not seen:
            raise ValueError(f"features = {layer}: a forward pass does not call it; choose another module")
        yield seen.pop().clone()
