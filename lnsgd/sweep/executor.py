"""Who runs the jobs of a sweep: the interface, and all that there are."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lnsgd.sweep.folder import SweepFolder
from lnsgd.sweep.slurm_options import SlurmOptions

# Where executors are; each is imported when it is asked for.
EXECUTORS = {"local": "lnsgd.sweep.local.LocalExecutor", "slurm": "lnsgd.sweep.slurm.SlurmExecutor"}

# The part of a machine's or a GPU's memory that jobs may fill together, where nothing else is asked for.
MEMORY_PART = 0.7

# Where a Linux container says how much memory it may take.
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Resources:
    """What a job can count on.

    Attributes:
        at_once: How many jobs run at the same time.
        memory: Bytes that one job may take: of the GPU where it runs on one, else of the machine.
        gpu: Whether jobs find a GPU.
    """

    at_once: int
    memory: float
    gpu: bool


class Executor(ABC):
    """Runs jobs somewhere, each by `lnsgd.sweep.work.run_job`.

    Args:
        workers: How many jobs run at the same time; by default as many as fit what there is.
        memory: Gigabytes (10⁹ bytes) that all of them may take together, on each GPU where there are GPUs; by default
            `MEMORY_PART` of what there is.
    """

    def __init__(self, workers: int | None = None, memory: float | None = None) -> None:
        self.workers = workers
        self.memory = memory

    @abstractmethod
    def resources(self) -> Resources:
        """What a job can count on."""

    @abstractmethod
    def prepare(self) -> None:
        """Called before jobs are planned, for what takes a while and can be done meanwhile."""

    @abstractmethod
    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """Runs jobs until each has its piece of the table.

        Args:
            folder: The sweep's folder; the jobs are kept there.
            jobs: Their names, in the order in which they are to begin.
            retries: See `lnsgd.sweep.work.run_job`.
            watch: To be called about twice a second: it shows how far the jobs are.

        Returns:
            False where it was interrupted: then all that runs has been stopped, and can go on; or goes on without
            this process, where another system runs it.
        """

    def handed_over(self, folder: SweepFolder, jobs: int) -> str:
        """The text in which a number of jobs is given to another system; empty where this process runs them."""
        return ""


def make_executor(name: str, workers: int | None, memory: float | None, slurm: SlurmOptions | None = None) -> Executor:
    """An executor by its name.

    Args:
        name: A key of `EXECUTORS`.
        workers: See `Executor`.
        memory: See `Executor`.
        slurm: What each job gets, for SLURM only.

    Raises:
        ValueError: there is none of this name; less than one worker, or no memory; options of another executor.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor {name}: there is no such executor; choose one of {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}; give at least 1")
    if memory is not None and not memory > 0:
        raise ValueError(f"--memory {memory}; give gigabytes > 0")
    if slurm is not None and name != "slurm":
        raise ValueError(f"--executor {name} takes no --slurm options; give --executor slurm, or leave them out")
    module, _, kind = EXECUTORS[name].rpartition(".")
    executor = getattr(importlib.import_module(module), kind)
    made: Executor = executor(workers, memory, *([slurm] if name == "slurm" else []))
    return made


def machine_memory() -> float:
    """Bytes of memory that this machine, or the container around this process, has."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return float(installed if limit == "max" else min(installed, int(limit)))


def gpu_memory() -> float:
    """Bytes of memory of the smallest GPU."""
    return float(min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(torch.cuda.device_count())))
