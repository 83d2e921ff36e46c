"""Activation sites: the modules whose inputs are pre-activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import Tensor, nn
from torchmetrics import Metric

from lnsgd.models.activations import CubicPlusLinear

Found = TypeVar("Found")

ACTIVATION_TYPES: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Softplus,
    nn.Tanh,
    nn.Sigmoid,
    CubicPlusLinear,
)


def activation_sites(model: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Activation sites of a model by name, in the order of ``model.named_modules()``.

    Activations called as functions (``F.relu``) are not modules and cannot be found.

    Args:
        model: Any module. One wrapped by ``torch.compile`` must be unwrapped first: compiled code
            ignores hooks that are added later.
        patterns: Shell-style patterns of module names (``activations.*``, ``layer3.*.relu``); modules
            of any type may match. By default all modules of an activation type of torch's (``ACTIVATION_TYPES``).

    Raises:
        ValueError: nothing matches, or one of the patterns does not; the message lists the modules.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if patterns is None:
        sites = {name: module for name, module in modules.items() if isinstance(module, ACTIVATION_TYPES)}
        if not sites:
            raise ValueError(
                f"no activation module in {type(model).__name__} (functions such as F.relu cannot be seen); name sites "
                f"by pattern among: {_listed(modules)}"
            )
        return sites
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in modules):
            raise ValueError(f"layer pattern {pattern!r} matches no module; the modules are: {_listed(modules)}")
    return {name: m for name, m in modules.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def names_of_calls(found: Mapping[tuple[str, int], Found]) -> dict[str, Found]:
    """What was found at each call of each site in a forward pass, by the name of the site.

    Args:
        found: By name of the module and number of its call, 1, 2, …

    Returns:
        In the same order; ``name#1``, ``name#2`` and so on for a module that is called more than once, since it stands
        for several layers.

    Example:
        >>> names_of_calls({("relu", 1): 10, ("head", 1): 20, ("relu", 2): 30})
        {'relu#1': 10, 'head': 20, 'relu#2': 30}
    """
    repeated = {name for name, call in found if call > 1}
    return {f"{name}#{call}" if name in repeated else name: value for (name, call), value in found.items()}


def _listed(modules: Mapping[str, nn.Module]) -> str:
    leaves = {n: m for n, m in modules.items() if not isinstance(m, Metric) and next(m.children(), None) is None}
    return ", ".join(f"{name} ({type(module).__name__})" for name, module in leaves.items())


@contextmanager
def observe(sites: Mapping[str, nn.Module], observer: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls ``observer(name, preactivations)`` at each forward pass through a site.

    The tensor may be overwritten by an in-place activation right after the call: use it at once.

    Args:
        sites: Activation modules by name, as from `activation_sites`.
        observer: Gets the name of a site and what goes into it, (B, …), detached.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: observer(name, inputs[0].detach())

    with ExitStack() as stack:
        for name, module in sites.items():
            stack.callback(module.register_forward_pre_hook(hook(name)).remove)
        yield
