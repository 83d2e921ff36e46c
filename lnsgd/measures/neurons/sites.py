"""Activation sites: the places in a forward pass where pre-activations are seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn
from torchmetrics import Metric

from lnsgd import compat
from lnsgd.measures.neurons.activations import ACTIVATION_FUNCTIONS, hides_activation, is_activation

Found = TypeVar("Found")

TOTAL = "total"
"""The name under which a number over all sites stands beside those of the sites."""


_NOT_SCRIPTED = "measure the network before torch.jit.script or torch.jit.trace, with the same weights"


class NoSitesError(ValueError):
    """No activation site is called in a forward pass."""


class Sites(Mapping[str, nn.Module]):
    """The activation sites of a model, as `activation_sites` finds them.

    A mapping from the names of sites to modules. Activations that are called as functions are sites too; which of them
    there are shows in a forward pass, see `observe`.

    Attributes:
        model: The model.
        layers: Patterns of sites; ``None`` for all activations.
        before: Modules whose first argument is a pre-activation, by name.
        after: Modules whose output is a pre-activation, by the name of the site, ``<module>.output``.
        activations: All modules of the model that are activations. What is called within them are no sites.
        hiding: Modules which seem to contain activations that cannot be seen, by name.

    Args:
        model: See `activation_sites`.
        layers: See `activation_sites`.
        after: See `activation_sites`.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None = None, after: Sequence[str] = ()) -> None:
        self.model = model
        after = [compat.plain_name(pattern) for pattern in after]
        layers = None if layers is None else [compat.plain_name(pattern) for pattern in layers]
        self.layers = () if layers is None and after else layers
        # A wrapped module comes after its wrapper, which has the same name, and takes its place below.
        self.names = {module: compat.plain_name(name) for name, module in model.named_modules()}
        modules = {name: module for module, name in self.names.items() if name}
        self.activations = {module for module in modules.values() if is_activation(module)}
        for argument, patterns in (("layers", self.layers or ()), ("after", after)):
            for pattern in patterns:
                self._check(argument, pattern, modules)
        if self.layers is None:
            self.before = {name: module for name, module in modules.items() if module in self.activations}
        else:
            self.before = {name: module for name, module in modules.items() if _matches(name, self.layers)}
        self.after = {f"{name}.output": module for name, module in modules.items() if _matches(name, after)}
        if self.layers is not None or after:
            self._check_seen()
        scripted = [module for module in modules.values() if compat.is_torchscript(module)]
        within = {inner for module in scripted for inner in module.modules() if inner is not module}
        self.hiding = {
            name: module
            for name, module in modules.items()
            if module not in self.activations and module not in within and hides_activation(module)
        }
        if both := next(iter(self.before.keys() & self.after.keys()), None):
            raise ValueError(f"{both} is the name of two sites, by `layers` and by `after`; leave one out")

    def __getitem__(self, name: str) -> nn.Module:
        return self.before[name] if name in self.before else self.after[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.before
        yield from self.after

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def is_chosen(self) -> bool:
        """Whether the user chose the sites, by patterns."""
        return self.layers is not None

    def chosen_by(self, name: str) -> str:
        """Return the argument that chooses a site, for messages."""
        return "`after`" if name in self.after else "`layers`"

    def name_of_function(self, module: nn.Module, function: str) -> str | None:
        """Return the name of the site where a module calls an activation function; ``None`` if that is not a site.

        It is the name of the module and that of the function, ``layer1.0.relu``; or ``layer1.0.F.relu`` where
        ``layer1.0.relu`` is a module.

        Args:
            module: The innermost module that is being executed.
            function: Name of the function, see ``ACTIVATION_FUNCTIONS``.
        """
        name = self._function_name(self.names[module], function)
        return name if self.layers is None or _matches(name, self.layers) else None

    def check_found(self, names: Iterable[str]) -> None:
        """Check after a forward pass that there were sites, and some for each pattern.

        Args:
            names: Names of the sites that were called.

        Raises:
            NoSitesError: no site was called.
            ValueError: a pattern matches neither a module nor a function that was called.
        """
        called = list(names)
        for pattern in self.layers or ():
            if not any(fnmatchcase(name, pattern) for name in (*self.before, *called)):
                raise ValueError(
                    f"layer pattern {pattern!r} matches no module, and no activation function that is called; the "
                    f"modules are: {self._listed()}"
                )
        if not called:
            raise NoSitesError(self._nothing_called())

    def _nothing_called(self) -> str:
        if len(self):
            return (
                f"none of the activation sites is called in a forward pass: {', '.join(self)}; choose others by "
                "`layers`, and give a module that torch.compile has not compiled"
            )
        if compat.is_torchscript(self.model):
            return f"the network is TorchScript, in which no activation can be seen; {_NOT_SCRIPTED}"
        hiding = ", ".join(f"{name} ({type(module).__name__})" for name, module in self.hiding.items())
        return (
            f"{type(self.model).__name__} calls no activation that can be seen"
            + (f" (not seen within {hiding})" if hiding else "")
            + f"; name sites by patterns of modules, `layers` for inputs or `after` for outputs: {self._listed()}"
        )

    def _function_name(self, module: str, function: str) -> str:
        prefix = f"{module}." if module else ""
        plain = f"{prefix}{function}"
        return f"{prefix}F.{function}" if plain in self.names.values() else plain

    def _check(self, argument: str, pattern: str, modules: Iterable[str]) -> None:
        if any(fnmatchcase(name, pattern) for name in modules):
            return
        functions = (self._function_name(name, f) for name in self.names.values() for f in ACTIVATION_FUNCTIONS)
        if argument == "layers" and any(fnmatchcase(name, pattern) for name in functions):
            return  # whether it is called shows in a forward pass
        kind = "layer pattern" if argument == "layers" else "pattern of `after`"
        raise ValueError(f"{kind} {pattern!r} matches no module; the modules are: {self._listed()}")

    def _check_seen(self) -> None:
        for name, module in self.items():
            if compat.is_torchscript(module):
                raise ValueError(f"{name} is TorchScript, in which nothing can be seen; {_NOT_SCRIPTED}")

    def _listed(self) -> str:
        leaves = [
            f"{name} ({type(module).__name__})"
            for module, name in self.names.items()
            if name and not isinstance(module, Metric) and next(module.children(), None) is None
        ]
        return ", ".join(leaves)


def activation_sites(model: nn.Module, layers: Sequence[str] | None = None, after: Sequence[str] = ()) -> Sites:
    """Find the activation sites of a model: where the argument of an activation, a pre-activation, is seen.

    By default these are all activation modules, of PyTorch and of other packages (see
    `lnsgd.measures.is_activation`), and all calls of activation functions such as ``F.relu`` in a forward pass.
    The softmax of attention is not an activation. The gates within ``nn.LSTM`` and other recurrent layers cannot be
    seen, nor can activations that are written with other functions than those of PyTorch.

    Args:
        model: Any module. A module wrapped by ``torch.compile`` must be unwrapped first: compiled code ignores hooks
            that are added later.
        layers: Shell-style patterns of modules (``activations.*``, ``layer3.*.relu``) whose first argument is a
            pre-activation, and of activation functions, named after the module that calls them; modules of any type
            may match. By default all activations, or none if ``after`` is given.
        after: Shell-style patterns of modules (``*.bn1``) whose output is a pre-activation; the site of a module is
            called ``<module>.output``. Of several outputs the first one counts.

    Returns:
        Modules by the name of the site, in the order of ``model.named_modules()``. Functions are not among them. Names
        have no parts that wrappers of torch insert, such as the ``_orig_mod`` of ``torch.compile``.

    Raises:
        ValueError: one of the patterns can match nothing; the message lists the modules.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(activation_sites(net)), list(activation_sites(net, after=["0"]))
        (['1'], ['0.output'])
    """
    return Sites(model, layers, after)


def names_of_calls(found: Mapping[tuple[str, int], Found]) -> dict[str, Found]:
    """Name the calls of sites in a forward pass.

    Args:
        found: Values by name of the site and number of its call, 1, 2, …

    Returns:
        The values in the same order by name. A site that is called more than once stands for several layers, which
        are named ``name#1``, ``name#2`` and so on; so does one called ``total``, the name of the number over all sites.

    Example:
        >>> names_of_calls({("relu", 1): 10, ("head", 1): 20, ("relu", 2): 30})
        {'relu#1': 10, 'head': 20, 'relu#2': 30}
    """
    repeated = {name for name, call in found if call > 1} | {TOTAL}
    return {f"{name}#{call}" if name in repeated else name: value for (name, call), value in found.items()}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
