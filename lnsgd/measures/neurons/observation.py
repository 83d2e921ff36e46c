"""Seeing the pre-activations of a forward pass: hooks on modules, and a mode that sees functions."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lnsgd import compat
from lnsgd.measures.neurons.activations import activation_function, hides_activations
from lnsgd.measures.neurons.sites import Sites

SiteObserver = Callable[[str, Tensor], None]


@contextmanager
def observe(
    sites: Sites,
    observer: SiteObserver | None = None,
    results: SiteObserver | None = None,
    *,
    whole: bool = False,
    functions: bool = True,
) -> Iterator["Observation"]:
    """Call ``observer(name, preactivations)`` at each call of a site, within this context.

    A function counts if a module of the model calls it. If an activation function is applied directly to the result of
    an activation, as in ``torch.tanh(F.softplus(x))``, both are one activation, and only the first is seen.

    An in-place activation may overwrite the tensor right after the call: use it at once.

    Args:
        sites: Activation sites, as from `activation_sites`.
        observer: Takes the name of a site and its pre-activations, detached.
        results: Takes the name of a site and the result of the activation, detached; for a site of ``after``, the
            pre-activations again.
        whole: Look only while the model itself is called, not at parts of it that are called from outside.
        functions: Whether to see functions, for which PyTorch must call Python before each of them.

    Yields:
        What else was seen.
    """
    observation = Observation(sites, observer, results, whole=whole, functions=functions)
    with ExitStack() as stack:
        stack.callback(observation.stop)
        for module in sites.names:
            if compat.is_torchscript(module):  # it takes no hooks
                continue
            stack.callback(module.register_forward_pre_hook(observation.enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(observation.leave, always_call=True).remove)
        yield observation


class Observation:
    """Forward passes while they are observed, see `lnsgd.measures.observe`.

    Attributes:
        calls: Number of calls of the model so far.
        unseen: Descriptions of calls of activations whose pre-activations were not seen.

    Args:
        sites: See `lnsgd.measures.observe`.
        observer: See `lnsgd.measures.observe`.
        results: See `lnsgd.measures.observe`.
        whole: See `lnsgd.measures.observe`.
        functions: See `lnsgd.measures.observe`.
    """

    def __init__(
        self,
        sites: Sites,
        observer: SiteObserver | None = None,
        results: SiteObserver | None = None,
        *,
        whole: bool = False,
        functions: bool = True,
    ) -> None:
        self.calls = 0
        self.unseen: dict[str, None] = {}
        self._sites = sites
        self._observer = observer
        self._results = results
        self._whole = whole
        self._before = {module: name for name, module in sites.before.items()}
        self._after = {module: name for name, module in sites.after.items()}
        self._mode = _FunctionMode(self._function) if functions else None
        self._executing: list[nn.Module] = []
        self._activations = 0  # how many of them are activations
        self._is_paused = False
        self._result: Any = None  # of the activation that was called last, if nothing was called since

    def enter(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        """See a module before its call; a forward pre-hook."""
        if not self._executing:
            if self._whole and module is not self._sites.model:
                return
            if self._mode is not None:
                self._mode.__enter__()
        self.calls += module is self._sites.model
        self._executing.append(module)
        self._activations += module in self._sites.activations
        if module in self._before:
            self._see(self._observer, self._before[module], _first_argument(module, arguments, options))

    def leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """See a module after its call, also a failed one; a forward hook."""
        if not self._executing or self._executing[-1] is not module:
            return
        self._executing.pop()
        if not self._executing and self._mode is not None:
            self._mode.__exit__(None, None, None)
        if module in self._sites.activations:
            self._activations -= 1
            self._result = output
        if output is None:  # it failed
            return
        if module in self._before and self._results:
            self._see(self._results, self._before[module], output)
        if module in self._after:
            for look in (self._observer, self._results):
                self._see(look, self._after[module], output)

    def stop(self) -> None:
        """Leave the modules that are still being executed, as after a keyboard interrupt."""
        if self._executing and self._mode is not None:
            self._mode.__exit__(None, None, None)
        self._executing.clear()
        self._result = None

    def _function(self, function: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if self._is_paused or self._activations:
            return function(*arguments, **options)
        name = activation_function(function, arguments, options)
        if name is None:
            return self._other_function(function, arguments, options)
        argument = arguments[0] if arguments else options.get("input")
        is_first = isinstance(argument, Tensor) and argument is not self._result
        site = self._sites.name_of_function(self._executing[-1], name) if is_first else None
        if site is not None:
            self._see(self._observer, site, argument)
        result = function(*arguments, **options)
        if site is not None:
            self._see(self._results, site, result)
        self._result = result
        return result

    def _other_function(self, function: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if hides_activations(function):
            module = self._executing[-1]
            if self._sites.names[module] not in self._sites.hiding:
                where = self._sites.names[module] or type(module).__name__
                self.unseen[f"{function.__name__} in {where}"] = None
        result = function(*arguments, **options)
        if getattr(function, "__name__", "") != "__get__":  # such as the shape of a tensor
            self._result = None
        return result

    def _see(self, look: SiteObserver | None, site: str, values: Any) -> None:
        if look is None:
            return
        tensor = _first_tensor(values)
        if tensor is None:
            raise ValueError(f"{site} is called on a {type(values).__name__}; pre-activations must be a tensor")
        was_paused, self._is_paused = self._is_paused, True
        try:
            look(site, tensor.detach())
        finally:
            self._is_paused = was_paused


class _FunctionMode(TorchFunctionMode):
    def __init__(self, call: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]) -> None:
        super().__init__()
        self._call = call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._call(func, args, kwargs or {})


def _first_argument(module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Return the first argument of a call of a module, also if it is given by name."""
    if arguments:
        return arguments[0]
    names = inspect.signature(module.forward).parameters
    return next((options[name] for name in names if name in options), next(iter(options.values()), None))


def _first_tensor(values: Any) -> Tensor | None:
    if isinstance(values, tuple | list) and values:
        values = values[0]
    return values if isinstance(values, Tensor) else None
