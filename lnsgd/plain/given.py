"""The arguments of `lnsgd.measure` and `lnsgd.Watch` in a common form: loaders, initial weights."""

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from lnsgd.measures import weights_in_use
from lnsgd.measuring import Split, unwrapped
from lnsgd.untrusted.checkpoint import load_safetensors

# Initial weights: a network, its state dict, tensors by parameter name, or the path of a safetensors file of them.
Init = nn.Module | Mapping[str, Tensor] | str | PathLike[str]

# What DataParallel and DistributedDataParallel put before the names of parameters.
_PREFIX = "module."


def loaders_by_split(loader: Any) -> Mapping[Split, Any]:
    """Return DataLoaders by split; a single loader counts as that of the training split.

    Args:
        loader: A DataLoader, a mapping of them by split, or ``None`` if there is no data.
    """
    if isinstance(loader, Mapping):
        return cast(Mapping[Split, Any], loader)
    return {} if loader is None else {"train": loader}


def initial_weights(init: Init | None, network: nn.Module) -> Mapping[str, Tensor] | None:
    """Return initial weights θ₀ by name, as `lnsgd.measures.distance_from_init` takes them.

    Args:
        init: See `Init`; ``None`` if they are not known.
        network: The network that is measured.

    Raises:
        ValueError: a file that cannot be read, or an object of another kind.
    """
    if init is None:
        return None
    if isinstance(init, nn.Module):
        return weights_in_use(unwrapped(init), initialized_only=True)
    if isinstance(init, str | PathLike):
        init = load_safetensors(Path(init))
    if not isinstance(init, Mapping) or not all(isinstance(value, Tensor) for value in init.values()):
        raise ValueError(
            f"init is a {type(init).__name__}; give a module, a state dict, tensors by parameter name, or the path of "
            "a safetensors file"
        )
    return _without_prefix(init, unwrapped(network).state_dict())


def _without_prefix(init: Mapping[str, Tensor], names: Collection[str]) -> Mapping[str, Tensor]:
    """Remove what ``DataParallel`` puts before every name, if the names of the network do not begin with it."""
    if (
        not init
        or not all(name.startswith(_PREFIX) for name in init)
        or any(name.startswith(_PREFIX) for name in names)
    ):
        return init
    return {name.removeprefix(_PREFIX): value for name, value in init.items()}
