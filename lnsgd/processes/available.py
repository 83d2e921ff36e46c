"""Which devices and machines a run may have."""

import os

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning import Trainer


def check_devices(accelerator: str, devices: str | int | list[int]) -> None:
    """Raises ValueError where a Trainer would not get its devices, and says which there are.

    Lightning starts any number of CPU processes, and says of a GPU only that there is none.

    Args:
        accelerator: The Trainer's setting.
        devices: The same.
    """
    gpus = torch.cuda.device_count()
    if accelerator == "mps":
        raise ValueError("trainer.accelerator = mps: it has no float64, which the measures sum in; use cpu or cuda")
    if accelerator in ("gpu", "cuda") and not gpus:
        raise ValueError(f"trainer.accelerator = {accelerator}: torch sees no GPU here; use cpu or auto")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus)
    available, kind = (gpus, "GPUs") if on_gpu else (os.cpu_count() or 1, "CPU cores")
    if devices == "auto" or (on_gpu and str(devices) == "-1"):
        return
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in str(devices).strip("[],").split(",")]
    if isinstance(devices, list) or "," in str(devices):  # which of them
        good = on_gpu and len(set(numbers)) == len(numbers) and all(0 <= number < gpus for number in numbers)
    else:
        good = 1 <= numbers[0] <= available
    if not good:
        places = f", or a list of some of 0 to {gpus - 1}" if on_gpu else ""
        raise ValueError(
            f"trainer.devices = {devices}: this machine has {available} {kind}; give 1 to {available}{places}"
        )


def check_nodes(trainer: Trainer) -> None:
    """Raises ValueError where other machines are waited for that nobody has started, for half an hour.

    Args:
        trainer: With its settings.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"trainer.num_nodes = {trainer.num_nodes}: this command was started on one machine only; start it on "
            "each, by srun or torchrun, or with MASTER_ADDR and NODE_RANK set"
        )


def cluster_environments() -> list[ClusterEnvironment]:
    """Plugins of the Trainer where SLURM has started this process, else none.

    It is SLURM's without Lightning's requeueing, which saves from inside the signal handler, in the middle of a step.

    Raises:
        ValueError: the allocation is no such that Lightning can run in it.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:  # of a wrong allocation
        raise ValueError(str(error)) from error
