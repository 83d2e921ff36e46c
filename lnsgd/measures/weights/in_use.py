"""The weights that a network computes with, also where it makes them from parameters of other names."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lnsgd import compat
from lnsgd.measures.evaluation import evaluation_mode


def weights_in_use(
    model: nn.Module,
    values: Mapping[str, Tensor] | None = None,
    *,
    trainable_only: bool = False,
    initialized_only: bool = False,
) -> dict[str, Tensor]:
    """Return the weights that a network computes with, by name, detached.

    These are its parameters, frozen ones too; a parameter that several modules share counts once. Where a module makes
    a tensor from parameters of other names, by ``torch.nn.utils.parametrize`` (weight and spectral normalization,
    orthogonal matrices), ``torch.nn.utils.prune``, or the older ``weight_norm`` and ``spectral_norm``, this tensor
    counts under its own name instead of those parameters: ``0.weight`` and not ``0.weight_orig``. Names and values are
    therefore the same before and after a parametrization or pruning that does not change the tensor. Names have no
    parts that wrappers of torch insert, such as the ``_orig_mod`` of ``torch.compile``. Buffers do not count.

    Args:
        model: Any module. Its parameters are returned themselves, so they share memory with the model.
        values: Take these values of parameters and buffers, by the names in the ``state_dict`` of the model or by the
            names that this function returns, instead of those of the model. Weights that they do not give are left out.
        trainable_only: Leave out weights that depend on no parameter that needs a gradient.
        initialized_only: Leave out parameters of lazy modules that have no value yet.

    Raises:
        ValueError: a parameter of a lazy module has no value yet.

    Example:
        >>> from torch.nn.utils.parametrizations import weight_norm
        >>> list(weights_in_use(nn.Sequential(weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))))
        ['0.bias', '0.weight', '1.weight', '1.bias']
    """
    waiting = uninitialized(model)
    if waiting and not initialized_only:
        raise ValueError(
            f"{type(model).__name__}: {compat.plain_name(waiting[0])} of a lazy module has no value yet; pass a batch "
            "through the network first"
        )
    made = _recomputed(model)
    sources = {source: name for name, of in made.items() for source in of}
    found: dict[str, Tensor | None] = {}  # None where it is to be computed
    for name, parameter in model.named_parameters():
        if name in waiting or (trainable_only and not parameter.requires_grad):
            continue
        used = sources.get(name, name)
        found[used] = None if name in sources else parameter.detach()
    if values is None:
        computed = _computed(model, [name for name in found if name in made])
    else:
        given = {compat.plain_name(name): value.detach() for name, value in values.items()}
        computed = _of_values(model, {name: made.get(name, (name,)) for name in found}, given)
        found = {name: None for name in found if name in computed}
    return {compat.plain_name(name): computed[name] if value is None else value for name, value in found.items()}


def uninitialized(model: nn.Module) -> list[str]:
    """Return the names of the parameters of lazy modules that have no value yet.

    Args:
        model: Any module.
    """
    return [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]


def _recomputed(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the tensors that modules make from parameters, by name, with the names of these parameters."""
    found: dict[str, tuple[str, ...]] = {}
    for prefix, module in model.named_modules():
        before = f"{prefix}." if prefix else ""
        for tensor, made in compat.recomputed_tensors(module).items():
            found[before + tensor] = tuple(before + source for source in made.sources)
    return found


def _computed(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Compute tensors that modules make from their parameters."""
    if not names:
        return {}
    with torch.no_grad(), evaluation_mode(model):
        found = {}
        for name in names:
            owner, _, tensor = name.rpartition(".")
            found[name] = compat.recomputed_tensors(model.get_submodule(owner))[tensor].compute().detach().clone()
        return found


class _Recomputing(nn.Module):
    """A module whose forward pass computes the tensors that the modules of a network make from their parameters."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self) -> dict[str, Tensor]:
        return _computed(self.model, self.names)


def _of_values(
    model: nn.Module, sources: Mapping[str, tuple[str, ...]], values: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights in use for given values of parameters and buffers; those that are not given are left out."""
    found, to_compute, parts = {}, [], {}
    for name, needed in sources.items():
        if (own := compat.plain_name(name)) in values:
            found[name] = values[own]
        elif all(compat.plain_name(source) in values for source in needed):
            to_compute.append(name)
    if to_compute:
        for name, tensor in model.state_dict(keep_vars=True).items():
            if compat.plain_name(name) in values:
                parts[f"model.{name}"] = values[compat.plain_name(name)].to(tensor.device)
        found |= torch.func.functional_call(_Recomputing(model, to_compute), parts, ())
    return found
