"""Pickles, looked through before anything in them is made.

A restricted reader refuses functions that a pickle may not call, but what it may make can still fill the memory or
take for ever: ``bytearray(10**12)``, a memo of 2³¹ entries, a tuple of tuples of tuples that is hashed.
"""

import pickletools
from collections.abc import Collection
from typing import IO, Any, NamedTuple

from lnsgd.untrusted.files import UnreadableError

# A tuple may have so many parts, those of its parts included: as a key it is hashed, every part as often as it occurs.
_MOST_PARTS = 1024

# A memo is an array in some readers: an index far beyond the number of entries fills the memory.
_MOST_MEMO = 1 << 24

_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", *_CALLS)


class CallsError(UnreadableError):
    """A pickle would call a function that it may not."""


class _Made(NamedTuple):
    """What a pickle puts on its stack: in how many parts it is hashed, and the text or global that it is."""

    parts: int = 1
    text: str = ""


def check_pickle(file: IO[bytes], callable_names: Collection[str]) -> None:
    """Looks through one pickle, up to its end; nothing in it is made.

    Args:
        file: Where the pickle begins; afterwards where it has ended.
        callable_names: What it may call, such as ``collections.OrderedDict``.

    Raises:
        CallsError: it calls anything else.
        UnreadableError: it is damaged, or would take memory or time out of proportion to its size.
    """
    looking = _Looking(callable_names)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            looking.take(opcode, argument)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise UnreadableError("it is no pickle, or damaged") from error


class _Looking:
    """The stack and the memo of a pickle's machine, with sizes in place of objects."""

    def __init__(self, callable_names: Collection[str]) -> None:
        self._callable_names = callable_names
        self._stack: list[_Made | None] = []  # None is a mark
        self._memo: dict[int, _Made] = {}

    def take(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """One instruction."""
        name = opcode.name
        if name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name in _PUTS or name == "MEMOIZE":
            self._keep(len(self._memo) if name == "MEMOIZE" else int(argument))
        elif name == "MARK":
            self._stack.append(None)
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "INST":
            self._check_call(str(argument).replace(" ", "."))
            self._replace(opcode, "")
        else:
            self._replace(opcode, argument if isinstance(argument, str) else "")

    def _keep(self, index: int) -> None:
        made = self._stack[-1]
        if index > _MOST_MEMO or made is None:
            raise UnreadableError(f"its memo has an entry {index}")
        self._memo[index] = made

    def _replace(self, opcode: pickletools.OpcodeInfo, text: str) -> None:
        """Takes from the stack what an instruction takes, and puts there what it gives."""
        taken = self._taken(opcode)
        name = opcode.name
        if name in _CALLS and name != "INST":
            self._check_call(taken[0].text)
        if name == "GLOBAL":
            text = text.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            text = f"{taken[0].text}.{taken[1].text}"
        parts = 1 + sum(one.parts for one in taken) if name in _TUPLES else 1
        if parts > _MOST_PARTS:
            raise UnreadableError(f"it has a tuple of more than {_MOST_PARTS:,} parts within each other")
        if opcode.stack_after:
            self._stack.append(_Made(parts, text))

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Made]:
        """What an instruction takes from the stack, in its order there."""
        taken: list[_Made] = []
        before = len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            while (one := self._stack.pop()) is not None:
                taken.append(one)
            before = opcode.stack_before.index(pickletools.markobject)
        for _ in range(before):
            one = self._stack.pop()
            taken.append(one if one is not None else _Made())
        return taken[::-1]

    def _check_call(self, name: str) -> None:
        if name not in self._callable_names:
            known = name and name.isprintable()
            raise CallsError(f"it asks for {name[:80] if known else 'what is no function'}")
