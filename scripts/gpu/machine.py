"""Print what the machine is, as one JSON object: python -m scripts.gpu.machine."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def describe_machine() -> dict[str, Any]:
    """Return processor, GPUs and versions of this machine.

    Returns:
        Memory of a GPU in GiB; the versions of packages that are not installed are ``None``.
    """
    gpus = [torch.cuda.get_device_properties(gpu) for gpu in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": [
            {
                "name": gpu.name,
                "memory_gib": round(gpu.total_memory / 2**30, 1),
                "compute_capability": f"{gpu.major}.{gpu.minor}",
            }
            for gpu in gpus
        ],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if gpus else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("lnsgd", "torch", "pytorch-lightning", "jax", "triton")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(describe_machine(), indent=2))
