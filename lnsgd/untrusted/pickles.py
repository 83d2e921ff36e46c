"""Check pickles before any object in them is made.

A restricted reader refuses functions that a pickle must not call, but objects that are allowed can still fill the
memory or take forever: ``bytearray(10**12)``, a memo of 2³¹ entries, a tuple of tuples of tuples that is hashed.
"""

import pickletools
from collections.abc import Callable, Collection
from typing import IO, Any, NamedTuple

from lnsgd.untrusted.files import UnreadableError

# The most parts of a tuple, including parts of its parts: as a key it is hashed, every part as often as it occurs.
_MAX_PARTS = 1024

# The largest index of a memo, which is an array in some readers: a larger index would fill the memory.
_MAX_MEMO = 1 << 24

_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", *_CALLS)


class CallsError(UnreadableError):
    """A pickle would call a function that is not allowed."""


class _StackItem(NamedTuple):
    """An object on the stack of a pickle: the number of parts that are hashed, and its text or global name."""

    parts: int = 1
    text: str = ""


def check_pickle(
    file: IO[bytes], callable_names: Collection[str], is_replaced: Callable[[str], bool] | None = None
) -> set[str]:
    """Check one pickle up to its end, without making any object.

    Args:
        file: Positioned at the beginning of the pickle; afterwards at its end.
        callable_names: Names that it may call, such as ``collections.OrderedDict``.
        is_replaced: Says of which further names, instead of being imported, a harmless one is called; by default none.

    Returns:
        The names that it refers to and that are replaced.

    Raises:
        CallsError: It calls anything else.
        UnreadableError: It is damaged, or would take memory or time out of proportion to its size.
    """
    simulator = _StackSimulator(callable_names, is_replaced or (lambda name: False))
    try:
        for opcode, argument, _ in pickletools.genops(file):
            simulator.execute(opcode, argument)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged pickle may raise any error
        raise UnreadableError("it is not a pickle, or damaged") from error
    return simulator.replaced


class _StackSimulator:
    """The stack and the memo of a pickle's machine, with sizes instead of objects."""

    def __init__(self, callable_names: Collection[str], is_replaced: Callable[[str], bool]) -> None:
        self.replaced: set[str] = set()
        self._callable_names = callable_names
        self._is_replaced = is_replaced
        self._stack: list[_StackItem | None] = []  # None is a mark
        self._memo: dict[int, _StackItem] = {}

    def execute(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Simulate one instruction."""
        name = opcode.name
        if name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name in _PUTS or name == "MEMOIZE":
            self._memorize(len(self._memo) if name == "MEMOIZE" else int(argument))
        elif name == "MARK":
            self._stack.append(None)
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "INST":
            self._check_call(str(argument).replace(" ", "."))
            self._replace(opcode, "")
        else:
            self._replace(opcode, argument if isinstance(argument, str) else "")

    def _memorize(self, index: int) -> None:
        made = self._stack[-1]
        if index > _MAX_MEMO or made is None:
            raise UnreadableError(f"its memo has an entry {index}")
        self._memo[index] = made

    def _replace(self, opcode: pickletools.OpcodeInfo, text: str) -> None:
        """Pop the arguments of an instruction from the stack, and push its result."""
        taken = self._pop_arguments(opcode)
        name = opcode.name
        if name in _CALLS and name != "INST":
            self._check_call(taken[0].text)
        if name == "GLOBAL":
            text = text.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            text = f"{taken[0].text}.{taken[1].text}"
        if name in ("GLOBAL", "STACK_GLOBAL") and self._is_replaced(text):
            self.replaced.add(text)
        parts = 1 + sum(one.parts for one in taken) if name in _TUPLES else 1
        if parts > _MAX_PARTS:
            raise UnreadableError(f"it has a tuple with more than {_MAX_PARTS:,} nested parts")
        if opcode.stack_after:
            self._stack.append(_StackItem(parts, text))

    def _pop_arguments(self, opcode: pickletools.OpcodeInfo) -> list[_StackItem]:
        """Pop the arguments of an instruction, and return them in their order on the stack."""
        taken: list[_StackItem] = []
        before = len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            while (one := self._stack.pop()) is not None:
                taken.append(one)
            before = opcode.stack_before.index(pickletools.markobject)
        for _ in range(before):
            one = self._stack.pop()
            taken.append(one if one is not None else _StackItem())
        return taken[::-1]

    def _check_call(self, name: str) -> None:
        if name not in self._callable_names and name not in self.replaced:
            known = name and name.isprintable()
            raise CallsError(f"it asks for {name[:80] if known else 'an object that is not a function'}")
