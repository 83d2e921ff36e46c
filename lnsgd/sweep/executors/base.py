"""The interface of an executor, which runs the jobs of a sweep, and the list of executors."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lnsgd.sweep.executors.slurm_options import SlurmOptions
from lnsgd.sweep.folder import SweepFolder

# Class paths of the executors, which are imported when they are used.
EXECUTORS = {
    "local": "lnsgd.sweep.executors.local.LocalExecutor",
    "slurm": "lnsgd.sweep.executors.slurm.SlurmExecutor",
}

# The default fraction of the memory of a machine or a GPU that all jobs together may take.
MEMORY_FRACTION = 0.7

# The file in which a Linux container finds how much memory it may take.
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Resources:
    """The resources of a job.

    Attributes:
        at_once: Number of jobs that run at the same time.
        memory: Bytes that one job may take: of the GPU if jobs run on GPUs, otherwise of the machine.
        gpu: Whether jobs run on a GPU.
    """

    at_once: int
    memory: float
    gpu: bool


class Executor(ABC):
    """A way to run jobs, each by `lnsgd.sweep.job_runner.run_job`.

    Args:
        workers: Number of jobs that run at the same time; by default as many as the resources allow.
        memory: Gigabytes (10⁹ bytes) that all jobs together may take, on each GPU if there are GPUs; by default the
            fraction `MEMORY_FRACTION` of what is installed.
    """

    def __init__(self, workers: int | None = None, memory: float | None = None) -> None:
        self.workers = workers
        self.memory = memory

    @abstractmethod
    def resources(self) -> Resources:
        """Return the resources of a job."""

    @abstractmethod
    def prepare(self) -> None:
        """Begin slow preparations; called before jobs are planned, so that both happen at the same time."""

    @abstractmethod
    def run(self, folder: SweepFolder, jobs: Sequence[str], retries: int, watch: Callable[[], None]) -> bool:
        """Run jobs until each has a result.

        Args:
            folder: The folder of the sweep, in which the jobs are recorded.
            jobs: Names of the jobs, in the order in which they start.
            retries: See `lnsgd.sweep.job_runner.run_job`.
            watch: Called about twice a second, to show the progress.

        Returns:
            False if this process was interrupted. The jobs then have been stopped, and can be resumed; or they
            continue without this process, if another system runs them.
        """

    def submission_script(self, folder: SweepFolder, jobs: int) -> str:
        """Return the script that submits a number of jobs to another system; empty if this process runs them."""
        return ""


def make_executor(name: str, workers: int | None, memory: float | None, slurm: SlurmOptions | None = None) -> Executor:
    """Make an executor by its name.

    Args:
        name: A key of `EXECUTORS`.
        workers: See `Executor`.
        memory: See `Executor`.
        slurm: The resources of each job, for SLURM only.

    Raises:
        ValueError: No executor has this name, less than one worker or no memory is given, or SLURM options are
            given for another executor.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor {name}: this executor does not exist; choose one of {', '.join(EXECUTORS)}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}; give at least 1")
    if memory is not None and not memory > 0:
        raise ValueError(f"--memory {memory}; give gigabytes > 0")
    if slurm is not None and name != "slurm":
        raise ValueError(f"--executor {name} takes no --slurm options; give --executor slurm, or remove them")
    module, _, kind = EXECUTORS[name].rpartition(".")
    executor = getattr(importlib.import_module(module), kind)
    made: Executor = executor(workers, memory, *([slurm] if name == "slurm" else []))
    return made


def machine_memory() -> float:
    """Return the bytes of memory of this machine, or of the container around this process."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return float(installed if limit == "max" else min(installed, int(limit)))


def gpu_memory() -> float:
    """Return the bytes of memory of the smallest GPU."""
    return float(min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(torch.cuda.device_count())))
