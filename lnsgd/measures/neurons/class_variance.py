"""How tightly the features of each class lie together: their variance within classes over that between classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.evaluation import WHOLE, Share, evaluation_mode
from lnsgd.measures.forward import Batches, OutputsFunction, outputs_of, tensors_in
from lnsgd.measures.neurons.observation import observe
from lnsgd.measures.neurons.sites import activation_sites
from lnsgd.measures.nonfinite import finite_examples, is_finite


@dataclass(frozen=True)
class ClassVariance:
    """Variance of the features of a layer, split into two parts.

    Attributes:
        within: Mean over examples of ‖h − μ_c‖², h the features of an example and μ_c their mean in its class.
        between: Mean over examples of ‖μ_c − μ‖², μ the mean of all features.
    """

    within: float
    between: float

    @property
    def ratio(self) -> float:
        """``within`` over ``between``: the smaller, the tighter the classes; ∞ or NaN if all classes have one mean."""
        if self.between:
            return self.within / self.between
        return math.inf if self.within else math.nan


def class_variance(
    model: nn.Module,
    data: Batches,
    layers: Sequence[str] | None = None,
    *,
    outputs: OutputsFunction = outputs_of,
    share: Share = WHOLE,
) -> dict[str, ClassVariance]:
    """Compute the variance of features within and between classes, by default those of the penultimate layer.

    The features of an example are the inputs h of a module, by default of the last ``nn.Linear``. With μ_c the mean of
    class c, n_c its number of examples and μ the mean of all n, the total variance is the sum of

        within = (1/n) Σ_i ‖h_i − μ_{c(i)}‖²,    between = (1/n) Σ_c n_c ‖μ_c − μ‖².

    Müller et al. (2019) and Cornacchia et al. (section 6.5) say that label smoothing makes the clusters of the classes
    tight: ``within`` gets small against ``between``.

    Args:
        model: Any module with outputs (B, C) or (B, 1); it runs in eval mode and is not changed.
        data: Batches (inputs, class labels) on the model's device.
        layers: Shell-style patterns of the modules whose inputs are taken; by default the last ``nn.Linear``. Of a
            module that is called several times in a forward pass, the last call counts.
        outputs: How the network is called, see `lnsgd.measures.outputs_of`.
        share: This process's share of the data, if several processes take the measure together.

    Returns:
        Variances by module, in float64, in squared units of the features. NaN if an input, a feature or a weight is
        not finite.

    Raises:
        ValueError: no ``nn.Linear`` and no ``layers``; a pattern that matches no module; labels that are not classes of
            the outputs; no examples; features without one row for each example.

    Example:
        >>> net = nn.Sequential(nn.Identity(), nn.Linear(1, 2))
        >>> data = [(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([0, 0, 1, 1]))]
        >>> class_variance(net, data)
        {'1': ClassVariance(within=1.0, between=25.0)}
    """
    sites = activation_sites(model, _penultimate(model) if layers is None else layers)
    sums: dict[str, _Sums] = {}
    batches = 0
    batch: dict[str, Tensor] = {}

    def keep(name: str, values: Tensor) -> None:
        if values.ndim == 0:
            raise ValueError(f"{name} takes a number, not one row for each example; choose other `layers`")
        batch[name] = values.reshape(len(values), -1).double()  # a copy, which the network cannot write into

    with torch.no_grad(), evaluation_mode(model), observe(sites, keep, functions=False):
        for inputs, labels in data:
            batches += 1
            batch.clear()
            scores = outputs_of(model, inputs, outputs)
            classes = max(scores.shape[-1], 2) if scores.ndim > 1 else 2
            _check_labels(labels, len(scores), classes)
            finite = finite_examples(*tensors_in(inputs))
            for name, rows in batch.items():
                if len(rows) != len(labels):
                    raise ValueError(
                        f"{name} takes shape {tuple(rows.shape)} for {len(labels)} examples; its first dimension must "
                        "be the examples: choose other `layers`"
                    )
                rows = rows.where(finite[:, None], torch.nan)
                sums.setdefault(name, _Sums(classes, rows)).add(rows, labels)
    if not batches:
        raise ValueError("no examples to take the variance of features of; the data is empty")
    sites.check_found(sums)
    is_known = is_finite(model)
    return {name: of.variance(share) if is_known else ClassVariance(torch.nan, torch.nan) for name, of in sums.items()}


def _penultimate(model: nn.Module) -> list[str]:
    """Return the name of the last ``nn.Linear``, whose inputs are the penultimate layer."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear whose inputs would be the penultimate layer; name the module "
            "whose inputs are meant by `layers`"
        )
    return [compat.plain_name(linear[-1])]


def _check_labels(labels: Tensor, examples: int, classes: int) -> None:
    if labels.is_floating_point() or labels.ndim != 1 or len(labels) != examples:
        raise ValueError(
            f"the variance within classes needs one class index for each example, but labels have shape "
            f"{tuple(labels.shape)} and {labels.dtype} for {examples} examples"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels go from {int(labels.min())} to {int(labels.max())}; the network has {classes} classes, 0 to "
            f"{classes - 1}"
        )


class _Sums:
    """Sums of features and of their squared norms over the examples of each class, in float64.

    Args:
        classes: Number of classes C.
        rows: Features of the first batch, (B, d).
    """

    def __init__(self, classes: int, rows: Tensor) -> None:
        self.number = rows.new_zeros(classes)
        self.features = rows.new_zeros(classes, rows.shape[1])
        self.squares = rows.new_zeros(classes)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Add the features (B, d) of examples with labels (B,)."""
        self.number.index_add_(0, labels, torch.ones_like(labels, dtype=rows.dtype))
        self.features.index_add_(0, labels, rows)
        self.squares.index_add_(0, labels, rows.square().sum(1))

    def variance(self, share: Share) -> ClassVariance:
        """Return the variances over the examples of all processes."""
        number, features, squares = (share.reduce(of) for of in (self.number, self.features, self.squares))
        present = number > 0
        number, features, squares = number[present], features[present], squares[present]
        means = features / number[:, None]
        within = (squares - number * means.square().sum(1)).clamp(min=0).sum() / number.sum()
        center = features.sum(0) / number.sum()
        between = (number * (means - center).square().sum(1)).sum() / number.sum()
        return ClassVariance(within.item(), between.item())
