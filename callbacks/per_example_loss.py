"""The loss of a module, example by example."""

import inspect
from collections.abc import Callable

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lnsgd.losses import Loss

# ``(outputs, labels) -> (B,)``: one of lnsgd's, or torch's with ``reduction="none"``. Modules are named apart from
# other callables so that a config can make one from its class path.
PerExampleLoss = Loss | nn.Module | Callable[[Tensor, Tensor], Tensor]

_REMEDY = "give the callback a per-example loss=, such as torch.nn.CrossEntropyLoss(reduction='none')"


def per_example_loss(given: PerExampleLoss | None, module: LightningModule) -> PerExampleLoss:
    """The loss given, else the module's attribute ``loss``.

    Whether it gives one number per example shows on the first batch; the measures check it.

    Raises:
        ValueError: the module has none, or one that does not take outputs and labels.
    """
    if given is not None:
        return given
    loss, name = getattr(module, "loss", None), type(module).__name__
    if loss is None:
        raise ValueError(f"{name} has no attribute `loss`; {_REMEDY}")
    try:
        inspect.signature(loss).bind("outputs", "labels")
    except (TypeError, ValueError) as error:
        raise ValueError(f"`loss` of {name} takes no outputs and labels ({error}); {_REMEDY}") from None
    return loss
