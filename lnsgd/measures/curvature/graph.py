"""Walks over the graph of a forward pass that autograd keeps."""

from collections.abc import Iterable, Iterator
from typing import Any


def inputs_first(root: Any, stop: Iterable[Any] = ()) -> Iterator[Any]:
    """Yield a node and all nodes that it depends on, each after the nodes that it depends on.

    Args:
        root: A node, or ``None`` for no nodes.
        stop: Nodes at which the walk stops; they are not yielded.
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
    """Return the nodes of a node's operands; constants have no node."""
    return [child for child, _ in node.next_functions if child is not None]


def users(root: Any) -> dict[Any, set[Any]]:
    """Map a node and every node that it depends on to the nodes among them that use it as an operand."""
    found: dict[Any, set[Any]] = {}
    for node in inputs_first(root):
        found.setdefault(node, set())
        for operand in operands(node):
            found[operand].add(node)
    return found
