"""Read pickled dictionaries of NumPy arrays, without executing anything that a pickle asks for."""

import io
import pickle
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.pickles import check_pickle


class PickledArray:
    """A replacement of an array while a pickle is read, which keeps the content of the file away from NumPy.

    Args:
        arguments: The arguments of the array; they have no effect, because its state contains everything.
    """

    def __init__(self, *arguments: object) -> None:
        self._state: Any = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def to_numpy(self) -> np.ndarray:
        """Return the array of uint8, read-only.

        Raises:
            ValueError: It has another type, or another number of bytes than its shape requires.
        """
        _, shape, dtype, fortran_order, content = self._state
        if not isinstance(dtype, _PickledType) or dtype.code not in (b"u1", "u1") or len(content) != prod(shape):
            raise ValueError("an array is not of unsigned bytes, or cut short")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _PickledType:
    """A replacement of the type of an array."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Do nothing, because byte order and similar settings do not matter for single bytes."""


# All names that a pickled array needs, with their replacements.
_STAND_INS = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
}


# The names that a pickle may call.
_CALLABLE = tuple(f"{module}.{name}" for module, name in _STAND_INS)


class _Reader(pickle.Unpickler):
    """A reader that refuses all classes and functions except those of NumPy arrays, which it replaces."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]


def read_pickled(path: Path, largest: int | None = None) -> Any:
    """Read what Python 2 or 3 has pickled: built-in types and, instead of arrays, `PickledArray`.

    Strings of Python 2 are ``bytes``.

    Args:
        path: The file.
        largest: The largest number of bytes that is allowed.

    Raises:
        ValueError: The file is not a pickle, is cut short or too large, or asks for anything except arrays.
    """
    try:
        size_of(path, largest)
        content = io.BytesIO(path.read_bytes())
        check_pickle(content, _CALLABLE)
        content.seek(0)
        return _Reader(content, encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise any error
        raise ValueError(f"it is not a pickle of arrays ({error})") from error
