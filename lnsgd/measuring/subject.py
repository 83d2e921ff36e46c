"""The network that is measured, at one moment."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from lnsgd import compat
from lnsgd.losses import Loss
from lnsgd.models import MLP

T = TypeVar("T")

# Modules are listed apart from other callables so that a config can make one from its class path.
PerExampleLoss = Loss | nn.Module | Callable[[Tensor, Tensor], Tensor]
"""``(outputs, labels) -> (B,)``: a loss of lnsgd, or a loss of torch with ``reduction="none"``."""

_REMEDY = "give a per-example loss=, such as torch.nn.CrossEntropyLoss(reduction='none')"


@dataclass
class Subject:
    """One network with its weights as they are now.

    A subject stands for these weights at this moment: whatever is computed from them once and needed again, such as a
    forward pass that several measurers share, is kept in it (`once`). When the weights change, make a new subject;
    nothing has to be flushed.

    Attributes:
        module: The network, from inputs (B, …) to outputs (B, …). Its attribute ``loss``, if it has one, is the
            default per-example loss; its attribute ``label_noise`` is used where noisy labels are asked for.
        data: The data of its run. If it has ``measurement_dataloader(split, examples)``, that is where the batches come
            from; ``num_classes`` is read too.
        replica: Number of the replica; 0 in an ordinary run.
        init: Initial weights θ₀ by parameter name; ``None`` if they are not known.
        default_loss: The per-example loss of measurers that have none of their own; ``None`` for the module's.
        findings: Results computed so far for these very weights, by key.
    """

    module: nn.Module
    data: Any = None
    replica: int = 0
    init: Mapping[str, Tensor] | None = None
    default_loss: PerExampleLoss | None = None
    findings: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result kept under a key; compute and keep it at the first request."""
        if key not in self.findings:
            self.findings[key] = compute()
        return self.findings[key]

    def loss(self, given: PerExampleLoss | None = None) -> PerExampleLoss:
        """Return the given per-example loss, or else ``default_loss``, or else the module's attribute ``loss``.

        Whether a loss gives one number per example shows on the first batch; the measures check it.

        Raises:
            ValueError: the module has no loss, or one that does not take outputs and labels.
        """
        chosen = self.default_loss if given is None else given
        if chosen is not None:
            return chosen
        loss, name = getattr(self.module, "loss", None), type(self.module).__name__
        if loss is None:
            raise ValueError(f"{name} has no attribute `loss`; {_REMEDY}")
        try:
            inspect.signature(loss).bind("outputs", "labels")
        except (TypeError, ValueError) as error:
            raise ValueError(f"`loss` of {name} does not take outputs and labels ({error}); {_REMEDY}") from None
        return loss

    def initial_weights(self) -> Mapping[str, Tensor]:
        """Return ``init``.

        Raises:
            ValueError: the initial weights are not known.
        """
        if self.init is None:
            raise ValueError("the initial weights θ₀ are not known; give them, or leave out the measure")
        return self.init

    @property
    def net(self) -> nn.Module:
        """The module's attribute ``net``, or else the module itself; without the wrapper of `torch.compile`."""
        net = getattr(self.module, "net", self.module)
        return compat.compiled_original(net) or net

    def mlp(self) -> MLP:
        """Return `net` for a measure that is defined for an `MLP` only.

        Raises:
            ValueError: it is not an `MLP`.
        """
        if not isinstance(self.net, MLP):
            raise ValueError(
                f"this measure is for an lnsgd.models.MLP, not for a {type(self.net).__name__}; leave the measure out"
            )
        return self.net
