"""Pickled dictionaries of NumPy arrays, read without running anything that a pickle may ask for."""

import io
import pickle
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lnsgd.untrusted.files import size_of
from lnsgd.untrusted.pickles import check_pickle


class PickledArray:
    """Stands for an array while a pickle is read: it keeps what the file says, which NumPy never sees.

    Args:
        arguments: What the array was made with; without effect, since all is in its state.
    """

    def __init__(self, *arguments: object) -> None:
        self._state: Any = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def to_numpy(self) -> np.ndarray:
        """The array, of uint8; read-only.

        Raises:
            ValueError: it is of another type, or holds another number of bytes than its shape says.
        """
        _, shape, dtype, fortran_order, content = self._state
        if not isinstance(dtype, _PickledType) or dtype.code not in (b"u1", "u1") or len(content) != prod(shape):
            raise ValueError("an array is not of unsigned bytes, or cut short")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


class _PickledType:
    """Stands for the type of an array."""

    def __init__(self, code: object, *flags: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Nothing: byte order and the like say nothing about single bytes."""


# Every name that a pickled array needs.
_STAND_INS = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
}


# What they may be called by; the others only stand in the arguments.
_CALLABLE = tuple(f"{module}.{name}" for module, name in _STAND_INS)


class _Reader(pickle.Unpickler):
    """Refuses every class and function, and puts stand-ins in the place of NumPy's; nothing else reaches code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]


def read_pickled(path: Path, most: int | None = None) -> Any:
    """What was pickled, by Python 2 or 3: built-in types and, in place of arrays, `PickledArray`.

    Strings of Python 2 are ``bytes``.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        ValueError: the file is no pickle, is cut short, asks for anything but arrays, or is larger.
    """
    try:
        size_of(path, most)
        content = io.BytesIO(path.read_bytes())
        check_pickle(content, _CALLABLE)
        content.seek(0)
        return _Reader(content, encoding="bytes").load()
    except Exception as error:  # a damaged pickle fails in any way
        raise ValueError(f"no pickle of arrays ({error})") from error
