"""Shared fixtures: where the full data sets are, what the user is told, and who starts commands."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.warm_commands import WarmCommands

# Doctests are collected from all modules, but two of one name cannot both be.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# Test processes run side by side; threads of one would only wait for those of the other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def full_data() -> Path:
    """Folder of the full data sets; tests that need it are skipped where there is none."""
    folder = os.environ.get("LNSGD_DATA_DIR")
    if not folder or not (Path(folder) / "MNIST" / "raw").is_dir():
        pytest.skip("needs the full MNIST: set LNSGD_DATA_DIR to a folder with MNIST/raw")
    return Path(folder)


@pytest.fixture(scope="session")
def full_cifar10() -> Path:
    """Folder of the full data sets with CIFAR-10 in either layout; tests that need it are skipped where it is not."""
    folder = os.environ.get("LNSGD_DATA_DIR")
    if not folder or not any((Path(folder) / f"cifar-10-batches-{kind}").is_dir() for kind in ("bin", "py")):
        pytest.skip("needs the full CIFAR-10: set LNSGD_DATA_DIR to a folder with cifar-10-batches-bin or -py")
    return Path(folder)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What Lightning's rank-zero logger tells the user."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def commands() -> Iterator[WarmCommands]:
    """Who starts commands that need a process of their own; what a command prints is in the folder where it runs."""
    started = WarmCommands()
    yield started
    started.close()
