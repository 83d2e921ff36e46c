"""Contributions of the hidden units of a network with one hidden layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lnsgd.measures.evaluation import evaluation_mode
from lnsgd.models import MLP


@dataclass(frozen=True)
class HiddenLayer:
    """The H hidden units of Σ_j c_j φ(w_j·x + b_j) + b with one output.

    Attributes:
        activations: φ(w_j·x_i + b_j), shape (n, H); NaN if the argument of φ is not finite.
        output_weights: c_j, shape (H,).
    """

    activations: Tensor
    output_weights: Tensor


def hidden_units(net: MLP, inputs: Tensor) -> HiddenLayer:
    """Compute the activations and output weights of the hidden units: the pairs of Blanc et al., Theorem 3.

    Args:
        net: An MLP with one hidden layer and one output, in eval mode while it is measured.
        inputs: Inputs, shape (n, …), in the network's precision.

    Raises:
        ValueError: a network with another number of hidden layers or outputs.

    Example:
        >>> from lnsgd.models import Constant
        >>> net = MLP([1, 2, 1], init=Constant(3.0))
        >>> units = hidden_units(net, torch.ones(1, 1))
        >>> units.activations.tolist(), units.output_weights.tolist()
        ([[3.0, 3.0]], [3.0, 3.0])
    """
    if len(net.widths) != 3 or net.widths[-1] != 1:
        raise ValueError(f"hidden_units: widths = {net.widths}; the network must have one hidden layer and one output")
    with torch.no_grad(), evaluation_mode(net):
        preactivations = net.layers[0](inputs.flatten(1))
        activations = net.activations[0](preactivations.clone()).where(preactivations.isfinite(), torch.nan)
    output = net.layers[1]
    assert isinstance(output, nn.Linear)
    return HiddenLayer(activations, output.weight.detach()[0])
