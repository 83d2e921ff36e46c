"""The resources of jobs, and how the local executor divides them."""

from importlib.util import find_spec

import pytest
import torch

from lnsgd.sweep.executors import base, local
from lnsgd.sweep.executors.base import machine_memory
from lnsgd.sweep.executors.local import LocalExecutor


@pytest.fixture
def machine(monkeypatch):
    """Return a function that simulates a machine with cores and GPUs, 100 GB, and 10 GB on each GPU."""

    def simulate(cores: int, gpus: int, visible: str | None = None) -> None:
        monkeypatch.setattr(local, "_count_cores", lambda: cores)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(local, "machine_memory", lambda: 100e9)
        monkeypatch.setattr(local, "gpu_memory", lambda: 10e9)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return simulate


# Cores, GPUs; workers, memory; jobs at once, memory of each in GB.
SHARES = {
    "cpu": (8, 0, None, None, 8, 8.75),
    "little-memory": (8, 0, None, 5.0, 2, 2.5),
    "least-memory": (8, 0, None, 1.0, 1, 1.0),
    "one-core": (1, 0, None, None, 1, 70.0),
    "workers": (8, 0, 2, None, 2, 35.0),
    "memory": (8, 0, 2, 30.0, 2, 15.0),
    "gpus": (8, 3, None, None, 6, 3.5),
    "fewer-than-gpus": (8, 3, 2, None, 2, 7.0),
    "uneven": (8, 3, 4, 8.0, 4, 4.0),
}


@pytest.mark.parametrize(("cores", "gpus", "workers", "memory", "at_once", "each"), SHARES.values(), ids=SHARES)
def test_memory_is_divided_among_jobs(cores, gpus, workers, memory, at_once, each, machine):
    machine(cores, gpus)
    found = LocalExecutor(workers, memory).resources()
    assert (found.at_once, found.gpu) == (at_once, gpus > 0)
    assert found.memory == pytest.approx(each * 1e9)


# Cores, GPUs, CUDA_VISIBLE_DEVICES, workers, jobs; threads and GPU of each slot.
SLOTS = {
    "cpu": (8, 0, None, 2, 9, [(4, None)] * 2),
    "fewer-jobs": (8, 0, None, 4, 1, [(2, None)]),
    "more-workers-than-cores": (2, 0, None, 3, 9, [(1, None)] * 3),
    "gpus-in-turn": (8, 2, None, 3, 9, [(2, "0"), (2, "1"), (2, "0")]),
    "some-visible": (8, 2, "4,7", 2, 9, [(4, "4"), (4, "7")]),
}


@pytest.mark.parametrize(("cores", "gpus", "visible", "workers", "jobs", "slots"), SLOTS.values(), ids=SLOTS)
def test_slots_have_threads_and_gpus(cores, gpus, visible, workers, jobs, slots, machine):
    machine(cores, gpus, visible)
    found = LocalExecutor(workers)._slots(jobs)
    assert [(slot.threads, slot.gpu) for slot in found] == slots


def test_memory_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(base, "_CGROUP_LIMIT", limit)
    installed = machine_memory()
    assert installed > 1e8
    for text, memory in (("max\n", installed), ("12345\n", 12345.0), (f"{10**18}\n", installed)):
        limit.write_text(text)
        assert machine_memory() == memory


@pytest.mark.parametrize("module", local._PRELOADED)
def test_preloaded_modules_exist(module):
    """The process that jobs are forked from ignores modules that it does not find."""
    assert find_spec(module) is not None
