"""The state of a network that a forward pass may change, and its restoration."""

import random
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, MutableMapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from lnsgd import compat

# What every module has; modes are restored apart, and hooks belong to who has registered them.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))

_CONTAINERS = (list, dict, set, deque)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_NUMBERS = (Tensor, np.ndarray, *_GENERATORS)
_PLAIN = (bool, int, float, complex, str, bytes, np.generic, torch.dtype, torch.device, Enum, Path)
_LIBRARIES = frozenset(("builtins", "lightning", "lnsgd", "pytorch_lightning", "torch", "torchmetrics", "transformers"))
_MOST_ELEMENTS = 1_000  # of a container that is looked into
_MISSING = object()


class Place(NamedTuple):
    """Where a module holds an object.

    Attributes:
        name: Name for messages, such as ``net.running_mean``.
        table: The dictionary that holds it: parameters, buffers or further attributes of a module.
        key: Its key there.
        is_registered: Whether it is a parameter or a buffer.
    """

    name: str
    table: MutableMapping[str, Any]
    key: str
    is_registered: bool

    def get(self) -> Any:
        """Return the object that is there now."""
        return self.table.get(self.key, _MISSING)

    def put(self, value: Any) -> None:
        """Put an object there, or nothing."""
        if value is _MISSING:
            self.table.pop(self.key, None)
        else:
            self.table[self.key] = value


class Holdings:
    """Which objects the modules of a network hold: as parameters, buffers and attributes, and within these.

    Lists, dictionaries, sets, deques and tuples are looked into, and objects of classes of the user that hold nothing
    but numbers, texts, tensors, arrays, generators and such containers or objects.

    Args:
        model: Any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tables: list[tuple[str, MutableMapping[str, Any], bool]] = []
        self._held: list[dict[str, Any]] = []
        self._inside: dict[int, tuple[Any, Any]] = {}
        self._objects: list[tuple[str, Any]] = []
        self._seen: dict[int, Any] = {}  # what was looked into
        for prefix, table, is_registered in _tables(model):
            self._add_table(prefix, table, is_registered)

    def _add_table(self, prefix: str, table: MutableMapping[str, Any], is_registered: bool) -> None:
        held = dict(table)
        self._tables.append((prefix, table, is_registered))
        self._held.append(held)
        for key, value in held.items():
            if is_registered:
                self._objects.append((f"{prefix}{key}", value))
            elif key not in _OF_EVERY_MODULE:
                self._look_into(f"{prefix}{key}", value)

    def _look_into(self, name: str, value: Any) -> None:
        if isinstance(value, _NUMBERS):
            self._objects.append((name, value))
        elif isinstance(value, (*_CONTAINERS, tuple)):
            if id(value) in self._seen:
                return
            self._seen[id(value)] = value
            if not isinstance(value, tuple):
                self._inside[id(value)] = value, value.copy()
            if len(value) <= _MOST_ELEMENTS:
                for element in value.values() if isinstance(value, dict) else value:
                    self._look_into(name, element)
        elif id(value) not in self._seen and _is_record(value):
            self._seen[id(value)] = value
            self._add_table(f"{name}.", vars(value), False)

    def objects(self) -> Iterator[tuple[str, Any]]:
        """Yield the tensors, arrays and generators with names for messages."""
        yield from self._objects

    def changed(self) -> list[tuple[Place, Any]]:
        """Return the places that hold other objects now, each with the object that it held."""
        found = []
        for (prefix, table, is_registered), held in zip(self._tables, self._held):
            for key in held.keys() | table.keys():
                before = held.get(key, _MISSING)
                if table.get(key, _MISSING) is not before and (is_registered or key not in _OF_EVERY_MODULE):
                    found.append((Place(f"{prefix}{key}", table, key, is_registered), before))
        return found

    def places_of(self, value: Any) -> list[Place]:
        """Return the places that held an object."""
        return [
            Place(f"{prefix}{key}", table, key, is_registered)
            for (prefix, table, is_registered), held in zip(self._tables, self._held)
            for key, object_ in held.items()
            if object_ is value
        ]

    def refills(self) -> list[Callable[[], None]]:
        """Return functions that give each list or other container that has changed its former elements."""
        return [
            partial(_refill, container, copy)
            for container, copy in self._inside.values()
            if not _have_same_elements(container, copy)
        ]

    def put_back(self) -> None:
        """Let the modules hold the same objects as before."""
        for place, before in self.changed():
            place.put(before)
        for refill in self.refills():
            refill()


def _tables(model: nn.Module) -> Iterator[tuple[str, MutableMapping[str, Any], bool]]:
    for name, module in model.named_modules():
        prefix = f"{compat.plain_name(name)}." if name else ""
        for table in compat.registered_tensors(module):
            yield prefix, table, True
        yield prefix, vars(module), False


def _is_record(value: Any, depth: int = 3) -> bool:
    """Return whether an object of a class of the user holds nothing but data, such as running statistics."""
    if isinstance(value, nn.Module | type | Dataset | Enum) or type(value).__module__.partition(".")[0] in _LIBRARIES:
        return False
    attributes = getattr(value, "__dict__", None)
    if not isinstance(attributes, dict) or not depth:
        return False
    return all(
        one is None or isinstance(one, (*_PLAIN, *_NUMBERS, *_CONTAINERS, tuple)) or _is_record(one, depth - 1)
        for one in attributes.values()
    )


def _refill(container: Any, copy: Any) -> None:
    container.clear()
    if isinstance(container, dict | set):
        container.update(copy)
    else:
        container.extend(copy)


def _have_same_elements(container: Any, copy: Any) -> bool:
    return len(container) == len(copy) and all(a is b for a, b in zip(_elements(container), _elements(copy)))


def _elements(container: Any) -> Iterator[Hashable]:
    if isinstance(container, dict):
        for key, value in container.items():
            yield key
            yield value
    else:
        yield from container


class TensorContent:
    """The numbers in a tensor.

    Args:
        name: Name for messages.
        tensor: The tensor.
        copy: A copy of its numbers, if there is one already.
    """

    def __init__(self, name: str, tensor: Tensor, copy: Tensor | None = None) -> None:
        self.name = name
        self.tensor = tensor
        self.stored = tensor.data  # shares the memory, and keeps it if `.data` gets other memory
        self.copy = self.stored.clone() if copy is None else copy

    def is_changed(self) -> bool:
        """Return whether a bit of the numbers has changed, or where they are stored."""
        now = self.tensor.data
        return now.data_ptr() != self.stored.data_ptr() or not have_same_bits(now, self.copy)

    def put_back(self) -> None:
        """Write the numbers back, where they were stored."""
        if self.tensor.data_ptr() != self.stored.data_ptr() or self.tensor.shape != self.stored.shape:
            self.tensor.data = self.stored
        with torch.inference_mode(self.stored.is_inference()):
            self.stored.copy_(self.copy)

    def stand_in(self) -> Tensor:
        """Return a tensor with the numbers, for the next forward pass; its derivative by the tensor is the identity."""
        value = self.copy.clone()
        return value + (self.tensor - self.tensor.detach()) if self.tensor.requires_grad else value


class ArrayContent:
    """The numbers in a NumPy array.

    Args:
        name: Name for messages.
        array: The array.
    """

    def __init__(self, name: str, array: "np.ndarray[Any, Any]") -> None:
        self.name = name
        self.array = array
        self.copy = array.copy()

    def is_changed(self) -> bool:
        """Return whether a number has changed; NaN equals NaN."""
        if np.array_equal(self.array, self.copy):
            return False
        same = (self.array == self.copy) | ((self.array != self.array) & (self.copy != self.copy))
        return not bool(np.all(same))

    def put_back(self) -> None:
        """Write the numbers back."""
        np.copyto(self.array, self.copy)


class GeneratorContent:
    """The state of a random generator of a module's own.

    Args:
        name: Name for messages.
        generator: The generator.
    """

    def __init__(self, name: str, generator: Any) -> None:
        self.name = name
        self.generator = generator
        self.state = _generator_state(generator)

    def is_changed(self) -> bool:
        """Return whether numbers have been drawn."""
        now = _generator_state(self.generator)
        return not torch.equal(now, self.state) if isinstance(now, Tensor) else repr(now) != repr(self.state)

    def put_back(self) -> None:
        """Let the generator draw the same numbers again."""
        if isinstance(self.generator, np.random.Generator):
            self.generator.bit_generator.state = self.state
        elif isinstance(self.generator, random.Random):
            self.generator.setstate(self.state)
        else:
            self.generator.set_state(self.state)


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def have_same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same shape and numbers; NaN equals NaN.

    Args:
        one: Any tensor.
        other: Another one.
    """
    if torch.equal(one, other):
        return True
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


class Contents:
    """The numbers in the tensors and arrays that a network holds, and the states of its generators.

    Tensors of functorch, lazy parameters and sparse tensors are left out.

    Args:
        holdings: What the network holds.
        known: Contents recorded earlier; copies are taken from there where the numbers are still the same.
        only: Names of the places that are recorded; by default all.
    """

    def __init__(
        self, holdings: Holdings, known: Iterable["Contents"] = (), only: Collection[str] | None = None
    ) -> None:
        self._of: dict[int, TensorContent | ArrayContent | GeneratorContent] = {}
        earlier = [contents._of for contents in known]
        for name, value in holdings.objects():
            if id(value) in self._of or (only is not None and name not in only):
                continue
            if isinstance(value, Tensor) and _has_numbers(value):
                found = (of[id(value)] for of in earlier if id(value) in of)
                copies = (content.copy for content in found if isinstance(content, TensorContent))
                same = next((copy for copy in copies if have_same_bits(copy, value.data)), None)
                self._of[id(value)] = TensorContent(name, value, same)
            elif isinstance(value, np.ndarray) and value.flags.writeable and not value.dtype.hasobject:
                self._of[id(value)] = ArrayContent(name, value)
            elif isinstance(value, _GENERATORS):
                self._of[id(value)] = GeneratorContent(name, value)

    def changed(self, only: Collection[str] | None = None) -> list[TensorContent | ArrayContent | GeneratorContent]:
        """Return the contents that have changed, by default of all."""
        among = (content for content in self._of.values() if only is None or content.name in only)
        return [content for content in among if content.is_changed()]


def _has_numbers(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_meta or is_lazy(tensor) or compat.is_of_transform(tensor))
