"""Threads that measure at the same time leave `torch.compile` as they found it."""

import sys
from threading import Barrier, Thread

from lnsgd import compat


def test_interleaved_threads_restore_compilation() -> None:
    import torch._dynamo

    compiled = []
    function = torch.compile(lambda x: x + 1, backend=lambda graph, _: compiled.append(graph) or graph.forward)
    first_entered, second_entered, first_left = Barrier(2), Barrier(2), Barrier(2)

    def first() -> None:
        with compat.without_compiled_code():
            first_entered.wait()
            second_entered.wait()
        first_left.wait()

    def second() -> None:
        first_entered.wait()
        with compat.without_compiled_code():
            second_entered.wait()
            first_left.wait()

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert function(torch.ones(1)).item() == 2 and len(compiled) == 1
    with compat.without_compiled_code():
        assert function(torch.ones(2)).tolist() == [2, 2] and len(compiled) == 1
    assert "torch._dynamo" in sys.modules
