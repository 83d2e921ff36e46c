"""Check that a run can have the devices and machines that it asks for."""

import os
from typing import Any

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning import Trainer

# Strategies that divide the weights among processes: their names in a config begin so, or their class is one of these,
# which both Lightnings have.
_SHARDING = ("fsdp", "deepspeed")
_SHARDING_CLASSES = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def check_strategy(strategy: Any) -> None:
    """Raise ValueError for a strategy that divides the weights among processes.

    A measure needs the whole network in each process, and so do the initial weights and the checkpoints of a run.

    Args:
        strategy: The setting ``trainer.strategy``, which is a name or has a ``class_path``; or the strategy of a
            Trainer.
    """
    named = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", None)
    if named is None:
        kinds = [kind.__name__ for kind in type(strategy).__mro__]
        named = type(strategy).__name__
    else:
        kinds = [str(named).rpartition(".")[2]]
    if kinds[0].startswith(_SHARDING) or not set(kinds).isdisjoint(_SHARDING_CLASSES):
        raise ValueError(
            f"trainer.strategy = {named}: it divides the weights among processes, and measures need the whole network "
            "in each of them; use ddp"
        )


def check_devices(accelerator: str, devices: str | int | list[int]) -> None:
    """Raise ValueError if a Trainer cannot have its devices, and name those that are available.

    Lightning starts any number of CPU processes, and reports a missing GPU without naming the available ones.

    Args:
        accelerator: The setting ``trainer.accelerator``.
        devices: The setting ``trainer.devices``.
    """
    gpus = torch.cuda.device_count()
    if accelerator == "mps":
        raise ValueError("trainer.accelerator = mps: it has no float64, which the measures sum in; use cpu or cuda")
    if accelerator in ("gpu", "cuda") and not gpus:
        raise ValueError(f"trainer.accelerator = {accelerator}: torch finds no GPU on this machine; use cpu or auto")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus)
    available, kind = (gpus, "GPUs") if on_gpu else (os.cpu_count() or 1, "CPU cores")
    if devices == "auto" or (on_gpu and str(devices) == "-1"):
        return
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in str(devices).strip("[],").split(",")]
    if isinstance(devices, list) or "," in str(devices):  # a list of device numbers
        good = on_gpu and len(set(numbers)) == len(numbers) and all(0 <= number < gpus for number in numbers)
    else:
        good = 1 <= numbers[0] <= available
    if not good:
        places = f", or a list of some of 0 to {gpus - 1}" if on_gpu else ""
        raise ValueError(
            f"trainer.devices = {devices}: this machine has {available} {kind}; give 1 to {available}{places}"
        )


def check_nodes(trainer: Trainer) -> None:
    """Raise ValueError if the processes of a Trainer are not those that were started.

    It would wait half an hour for machines on which nothing was started. Of further processes that torchrun has started
    each would be a run of its own, all in one folder.

    Args:
        trainer: The Trainer.
    """
    processes = trainer.num_devices * trainer.num_nodes
    if TorchElasticEnvironment.detect() and (started := int(os.environ["WORLD_SIZE"])) != processes:
        raise ValueError(
            f"torchrun has started {started} processes, and trainer.devices = {trainer.num_devices} on "
            f"trainer.num_nodes = {trainer.num_nodes} makes {processes}; give --trainer.strategy ddp, "
            "--trainer.devices as --nproc_per_node, and --trainer.num_nodes as --nnodes"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"trainer.num_nodes = {trainer.num_nodes}: this command was started on one machine only; start it on "
            "each, by srun or torchrun, or with MASTER_ADDR and NODE_RANK set"
        )


def cluster_environments() -> list[ClusterEnvironment]:
    """Return the plugins of the Trainer if SLURM has started this process, otherwise none.

    The plugin is Lightning's for SLURM without its requeueing, which saves from inside the signal handler, in the
    middle of a step.

    Raises:
        ValueError: Lightning cannot run in this allocation.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # the allocation does not fit
        raise ValueError(str(error)) from error
