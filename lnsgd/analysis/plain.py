"""A network that is no LightningModule, for callbacks that measure those."""

from collections.abc import Callable

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lnsgd.measures.precision import at_least_single


class PlainNetwork(LightningModule):
    """A network and, where there is one, its loss: what measures look at.

    Args:
        net: Any module, from inputs (B, …) to outputs (B, …).
        loss: Per-example loss ``(outputs, labels) -> (B,)``; without one, measures that need it cannot be taken.
    """

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs of the network, in at least single precision."""
        return at_least_single(self.net(inputs))
