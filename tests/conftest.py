"""Shared fixtures: folders of the full data sets, logged messages, and commands in processes of their own."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning  # noqa: F401  (sets the logger of rank-zero messages when it is imported)
import torch
from lightning_fabric.plugins.environments import lightning
from lightning_utilities.core import rank_zero

from tests.ports import find_port
from tests.warm_commands import WarmCommands

# Doctests are collected from all modules, but two of one name cannot both be.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# Test processes run side by side; threads of one would only wait for those of the other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


# A parameter for CUDA exists only where there is CUDA, so that a machine without it does not report skipped tests.
_DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the device of a test that runs on the CPU and, marked ``gpu``, on CUDA."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Return the folder of the full data sets; tests that need it are skipped if there is none."""
    folder = os.environ.get("LNSGD_DATA_DIR")
    if not folder or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("needs the full MNIST: set LNSGD_DATA_DIR to a folder with MNIST/raw")
    return Path(folder)


@pytest.fixture(scope="session")
def full_cifar10() -> Path:
    """Return the folder of the full data sets with CIFAR-10; tests that need it are skipped if there is none."""
    folder = os.environ.get("LNSGD_DATA_DIR")
    if not folder or not any((Path(folder) / f"cifar-10-batches-{kind}").is_dir() for kind in ("bin", "py")):
        pytest.skip("needs the full CIFAR-10: set LNSGD_DATA_DIR to a folder with cifar-10-batches-bin or -py")
    return Path(folder)


@pytest.fixture(autouse=True)
def messages_of_pytorch_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send rank-zero messages to the logger of pytorch_lightning, whichever package an earlier test has imported last.

    Both Lightnings share one logger of such messages, that of the package imported last.
    """
    monkeypatch.setattr(rank_zero, "log", logging.getLogger("pytorch_lightning.utilities.rank_zero"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test changes in the environment, and find ports for Lightning's processes that stay free.

    A Trainer that starts processes leaves the port where they met in the environment; commands that a later test
    starts would all meet there.
    """
    monkeypatch.setattr(lightning, "find_free_network_port", find_port)
    before = dict(os.environ)
    yield
    for name in {*os.environ, *before} - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@pytest.fixture(autouse=True)
def no_wandb_run_is_left() -> Iterator[None]:
    """Refuse a test that leaves a W&B run active: the runs of later tests in this process would differ."""
    yield
    wandb = sys.modules.get("wandb")
    assert wandb is None or wandb.run is None, "end the W&B run, for example by wandb.finish()"


@pytest.fixture
def told(messages_of_pytorch_lightning: None) -> Iterator[list[str]]:
    """Collect the messages of Lightning's rank-zero logger."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def commands() -> Iterator[WarmCommands]:
    """Start commands in processes of their own; the output of a command is in the folder where it runs."""
    started = WarmCommands()
    yield started
    started.close()
