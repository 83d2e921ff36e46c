"""Names of measures, such as ``active_neurons``: which measurer, and which callback, a name stands for."""

import inspect
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from lnsgd.measuring import curvature, neurons, outputs, special_networks, weights
from lnsgd.measuring.context import Split
from lnsgd.measuring.measurer import Measurer

_SUFFIX = "Measurer"


def measurers_named(
    chosen: str | Measurer | Iterable[str | Measurer], splits: Sequence[Split] = ("train", "val")
) -> list[Measurer]:
    """Return measurers that are chosen by name or given as objects, in their order.

    A name stands for the measurer with its default settings, on the splits that there are: one that measures several
    splits is taken on each of them, and one that measures a single split on the training split or else on the first.

    Args:
        chosen: Names, such as ``"hessian_trace"``, and measurers, which are returned as they are; or one of them.
        splits: The splits that there is data of.

    Raises:
        ValueError: a name that is not that of a measure, an object that is not a measurer, or nothing at all.

    Example:
        >>> active, trace = measurers_named(["active_neurons", "hessian_trace"], ["train", "val"])
        >>> active.splits, trace.split
        (['train', 'val'], 'train')
    """
    listed: list[Any] = [chosen] if isinstance(chosen, str | Measurer) else list(chosen)
    if not listed:
        raise ValueError(f"no measures are given; the measures are {', '.join(MEASURERS)}")
    return [_with_splits(one, splits) if isinstance(one, str) else _checked(one) for one in listed]


def measurer_class(name: str) -> type[Measurer]:
    """Return the class of measurers that a name stands for.

    Args:
        name: Name of a measure, such as ``active_neurons``, or of its callback, such as ``ActiveNeurons``.

    Raises:
        ValueError: there is no such measure; the message has the closest name and all names.

    Example:
        >>> measurer_class("active_neurons").__name__
        'ActiveNeuronsMeasurer'
    """
    key = _in_snake_case(name)
    if key not in MEASURERS:
        close = get_close_matches(key, MEASURERS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no measure {name!r}; {hint}the measures are {', '.join(MEASURERS)}")
    return MEASURERS[key]


def callback_class_name(name: str) -> str:
    """Return the name of the class in `lnsgd.callbacks` that measures what a name stands for.

    Args:
        name: See `measurer_class`.

    Raises:
        ValueError: there is no such measure.

    Example:
        >>> callback_class_name("active_neurons")
        'ActiveNeurons'
    """
    return measurer_class(name).__name__.removesuffix(_SUFFIX)


def _with_splits(name: str, splits: Sequence[Split]) -> Measurer:
    kind = measurer_class(name)
    if "splits" in kind.identified_by:
        return kind(splits=list(splits))  # type: ignore[call-arg]
    if "split" in kind.identified_by and splits and "train" not in splits:
        return kind(split=splits[0])  # type: ignore[call-arg]
    return kind()


def _checked(given: Any) -> Measurer:
    if not isinstance(given, Measurer):
        kind = given.__name__ if inspect.isclass(given) else type(given).__name__
        what = f"the class {kind}, not an object of it" if inspect.isclass(given) else f"a {kind}"
        raise ValueError(f"measures has {what}; give names such as 'active_neurons', or measurers of lnsgd.measuring")
    return given


def _in_snake_case(name: str) -> str:
    """Return ``active_neurons`` for ``ActiveNeurons`` and for ``ActiveNeuronsMeasurer``; other names as they are."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix(_SUFFIX)).lower().strip()


def _measurers_of(module: ModuleType) -> dict[str, type[Measurer]]:
    kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__]
    return {
        _in_snake_case(kind.__name__): kind
        for kind in kinds
        if issubclass(kind, Measurer) and kind.__name__.endswith(_SUFFIX) and not inspect.isabstract(kind)
    }


MEASURERS: dict[str, type[Measurer]] = {
    name: kind
    for module in (outputs, neurons, weights, curvature, special_networks)
    for name, kind in _measurers_of(module).items()
}
"""The class of each measure by its name, such as ``hessian_trace``: every measurer of lnsgd that is not a base."""
