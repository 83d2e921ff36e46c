"""Replicas in parallel over threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

# Parts of the replicas for each thread: a thread that got slow ones leaves the next part to the others.
_PARTS_PER_THREAD = 4


def over_threads(replicas: int, take: Callable[[int, int], None]) -> None:
    """Calls ``take(first, last)`` until each replica is in one part; at most `torch.get_num_threads` at a time.

    Args:
        replicas: Their number.
        take: Runs the replicas from ``first`` up to ``last``, without the interpreter's lock.
    """
    threads = min(torch.get_num_threads(), replicas)
    if threads == 1:
        take(0, replicas)
        return
    parts = min(replicas, threads * _PARTS_PER_THREAD)
    bounds = [replicas * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: take(*part), pairwise(bounds)))
