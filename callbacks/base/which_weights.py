"""Which weights a module holds while and after it is trained: those that are trained, or averages of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures import weights_in_use
from lnsgd.measuring import AVERAGED, REPLACED, TRAINED
from lnsgd.replicas import networks_of


class WhichWeights:
    """The weights that a module holds in a Trainer in which callbacks may average or replace them.

    Lightning's ``WeightAveraging`` keeps averages beside the trained weights; it puts them into the module while it is
    validated and when training ends. ``StochasticWeightAveraging`` replaces the trained weights by averages when
    training ends. Callbacks of other projects may do either without saying so.

    Args:
        trainer: The Trainer.
        module: Its module.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer, self._module = trainer, module
        self._callback = None if networks_of(module).is_replicated else compat.weight_averaging(trainer)
        self._kept: dict[str, Tensor] = {}
        self._kept_at: int | None = None
        self._trained = torch.zeros(0)
        self._is_announced = False

    @property
    def are_averaged_in_training(self) -> bool:
        """Whether averages are kept beside the trained weights during training."""
        return self._callback is not None and compat.averages_in_training(self._callback) is not None

    def check_averaged(self, name: str) -> None:
        """Raise ValueError if no averages are kept beside the trained weights, though a callback is to measure them.

        Args:
            name: Name of the callback's class.
        """
        if not self.are_averaged_in_training:
            raise ValueError(
                f"{name}: averaged = True, and no callback of the Trainer keeps averages of the weights; add one, such "
                "as EMAWeightAveraging of Lightning, or leave the argument out"
            )

    @property
    def are_between(self) -> bool:
        """Whether the present epoch trains nothing, because the module holds averages already."""
        return self._callback is not None and compat.is_updating_averages(self._callback, self._trainer)

    def keep_trained(self) -> None:
        """Remember the trained weights at the end of an epoch: callbacks may replace them when training ends."""
        if self._kept_at == self._trainer.global_step or self.are_between or networks_of(self._module).is_replicated:
            return
        self._kept_at = self._trainer.global_step
        if self._callback is None:
            self._trained = fingerprint(weights_in_use(self._module, initialized_only=True))
        else:
            self._kept = {name: value.detach().clone() for name, value in tensors_of(self._module).items()}

    @contextmanager
    def trained(self) -> Iterator[None]:
        """Let the module hold the trained weights of the last epoch within, also after averages have replaced them."""
        with holding(self._module, self._kept):
            yield

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the module hold the averages within that are kept beside the trained weights."""
        model = None if self._callback is None else compat.averages_in_training(self._callback)
        assert model is not None
        with holding(self._module, tensors_of(model)):
            yield

    @contextmanager
    def final(self) -> Iterator[str]:
        """Let the module hold the weights with which training ends; yields which they are.

        They are the trained ones, also where averages are kept beside them; or what has replaced them.
        """
        if self.are_averaged_in_training:
            with self.trained():
                yield TRAINED
        elif self._callback is not None:
            averages = compat.averages_at_the_end(self._callback, self._trainer)
            with holding(self._module, averages or {}):
                yield TRAINED if averages is None else AVERAGED
        else:
            yield REPLACED if self._are_replaced() else TRAINED

    def _are_replaced(self) -> bool:
        if self._kept_at != self._trainer.global_step or networks_of(self._module).is_replicated:
            return False
        now = fingerprint(weights_in_use(self._module, initialized_only=True))
        return not torch.allclose(now, self._trained, rtol=1e-6, atol=0.0, equal_nan=True)

    def announce(self) -> None:
        """Log once which weights are measured."""
        if self.are_averaged_in_training and not self._is_announced:
            self._is_announced = True
            rank_zero_info(
                f"{type(self._callback).__name__} validates, saves and returns averaged weights. Measures are of the "
                "trained weights; give a callback averaged=True to measure the averaged weights too"
            )


@contextmanager
def holding(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a module hold other values of parameters and buffers within; on exit it holds its own again.

    Args:
        module: The module.
        values: Values by name; tensors of the module that are not among them keep theirs.
    """
    own = {name: tensor for name, tensor in tensors_of(module).items() if name in values}
    before = {name: tensor.detach().clone() for name, tensor in own.items()}
    try:
        _set(own, values)
        yield
    finally:
        _set(own, before)


def _set(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by name, each once.

    Args:
        module: Any module.
    """
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def fingerprint(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return numbers, (2 · tensors,), float64, that differ if a tensor is another.

    They are the sum and the norm of each tensor, by name: a copy of all tensors would be exact, and take their memory.

    Args:
        tensors: Parameters and buffers by name.
    """
    numbers = [torch.zeros(0, dtype=torch.float64)]
    with torch.no_grad():
        for _, tensor in sorted(tensors.items()):
            flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().flatten()
            floating = flat if flat.is_floating_point() else flat.double()
            norm = torch.linalg.vector_norm(floating, dtype=torch.float64)
            numbers.append(torch.stack([floating.sum(dtype=torch.float64), norm]).cpu())
        return torch.cat(numbers)
