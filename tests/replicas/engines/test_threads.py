"""Replicas over threads: each one once, in consecutive portions; errors are raised."""

import pytest
import torch

from lnsgd.replicas.engines.kernel import over_threads


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("replicas", [1, 2, 5, 40])
def test_every_replica_is_in_one_portion(replicas: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    taken: list[int] = []
    over_threads(replicas, lambda first, last: taken.extend(range(first, last)))
    assert sorted(taken) == list(range(replicas))


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def take(first: int, last: int) -> None:
        raise RuntimeError("in a thread")

    with pytest.raises(RuntimeError, match="in a thread"):
        over_threads(4, take)
