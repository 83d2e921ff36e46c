"""Walks over the graph that autograd keeps of a forward pass."""

from collections.abc import Iterable, Iterator
from typing import Any


def inputs_first(root: Any, stop: Iterable[Any] = ()) -> Iterator[Any]:
    """All nodes that a node follows from, itself included, each after those it follows from.

    Args:
        root: A node, or ``None`` for no nodes.
        stop: Nodes that are not entered.
    """
    done = set(stop)
    stack = [(root, False)] if root is not None else []
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in operands(node))


def operands(node: Any) -> list[Any]:
    """The nodes that a node takes its operands from; constants have none."""
    return [child for child, _ in node.next_functions if child is not None]


def users(root: Any) -> dict[Any, set[Any]]:
    """By node that a node follows from, itself included: those of them that take an operand from it."""
    found: dict[Any, set[Any]] = {}
    for node in inputs_first(root):
        found.setdefault(node, set())
        for operand in operands(node):
            found[operand].add(node)
    return found
