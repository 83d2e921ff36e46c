"""Measuring any network in one call."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lnsgd.measures import OutputsFunction
from lnsgd.measuring import (
    BatchLayout,
    MeasurementPlan,
    Measurer,
    PerExampleLoss,
    measurers_named,
    unwrapped,
)
from lnsgd.plain.given import Init, initial_weights, loaders_by_split
from lnsgd.records.measures import QUANTITY, STDERR, VALUE, as_table

if TYPE_CHECKING:
    import pandas as pd


def measure(
    network: nn.Module,
    loader: Any = None,
    measures: str | Measurer | Sequence[str | Measurer] = (),
    *,
    loss: PerExampleLoss | None = None,
    init: Init | None = None,
    device: torch.device | str | None = None,
    batch: BatchLayout | None = None,
    outputs: OutputsFunction | None = None,
    precision: str | None = None,
) -> "pd.DataFrame":
    """Measure a network on data and return one row for each number.

    The network is left as it was: weights, mode, buffers, gradients and the global random state. Data is read through a
    loader of its own, so the given one and its workers are not touched. Under ``torch.distributed`` every process must
    call this function; each measures its share of the data, and all get the same table.

    Args:
        network: Any module.
        loader: A DataLoader, which counts as that of the training split, or DataLoaders by split: ``{"train": …, "val":
            …, "test": …}``. ``None`` if only weights are measured.
        measures: Names of measures, such as ``"active_neurons"`` and ``"hessian_trace"`` (`lnsgd.measuring.MEASURERS`
            has all), each with its default settings on the given splits; and objects for other settings, such as
            ``HessianTraceMeasurer(rtol=0.01)``, or callbacks.
        loss: Per-example loss ``(outputs, labels) -> (B,)``, such as ``torch.nn.CrossEntropyLoss(reduction="none")``,
            for measures of the loss; by default the network's attribute ``loss``.
        init: Initial weights θ₀ for measures that need them: a module, a state dict, tensors by parameter name, or the
            path of a safetensors file.
        device: Device to measure on, where a copy of the network is made; by default that of the network.
        batch: Function from a batch to inputs and labels, see `lnsgd.measuring.Source`; by default the first two
            elements of the batch, or ``labels`` and all other tensors of a dictionary.
        outputs: How the network is called, such as ``lambda network, inputs: network(**inputs).logits``; by default see
            `lnsgd.measures.outputs_of`.
        precision: Number format of the forward passes, see `lnsgd.measuring.PlainPrecision`; by default that of the
            weights.

    Returns:
        A table with the columns ``measure``, ``split``, ``layer``, ``value`` and ``stderr``: the standard error of a
        number that can be an estimate, NaN for all others. ``split`` is empty for a measure of the weights alone,
        ``layer`` for one of the whole network.

    Raises:
        ValueError: an unknown measure or split; a network or data that a measure cannot be taken of; a device that is
            not there.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> _ = net[0].weight.data.copy_(torch.eye(2)), net[0].bias.data.zero_()
        >>> data = TensorDataset(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([0, 1]))
        >>> print(measure(net, {"val": DataLoader(data)}, ["active_neurons"]).to_string(index=False))
                measure split layer  value  stderr
           active_count   val total   1.50     NaN
        active_fraction   val total   0.75     NaN
           active_count   val     1   1.50     NaN
        active_fraction   val     1   0.75     NaN
    """
    loaders = loaders_by_split(loader)
    chosen = measurers_named(measures, list(loaders))
    network, loss = _on_device(unwrapped(network), loss, device)
    plan = MeasurementPlan(
        network,
        loaders,
        chosen,
        loss=loss,
        init=initial_weights(init, network),
        batch=batch,
        outputs=outputs,
        precision=precision,
    )
    table = as_table((0, 0, found) for found in plan.take())
    return table[[*QUANTITY, VALUE, STDERR]]


def _on_device(
    network: nn.Module, loss: PerExampleLoss | None, device: torch.device | str | None
) -> tuple[nn.Module, PerExampleLoss | None]:
    """Return network and loss if they are on the device already, and else copies there."""
    if device is None:
        return network, loss
    try:
        wanted = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA fails an assertion
        why = str(error).partition("\n")[0]
        raise ValueError(f"device = {str(device)!r} cannot be used ({why}); leave it out, or give another") from error
    if all(parameter.device == wanted for parameter in network.parameters()):
        return network, loss
    return copy.deepcopy(network).to(wanted), copy.deepcopy(loss).to(wanted) if isinstance(loss, nn.Module) else loss
