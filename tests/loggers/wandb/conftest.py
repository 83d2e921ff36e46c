"""A folder isolated from the user's W&B, and a W&B server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from lnsgd.loggers.wandb import run
from tests.loggers.wandb.offline_runs import isolate
from tests.loggers.wandb.server import WandbServer, serving


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    isolate(monkeypatch, tmp_path)
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Start an empty server; the current folder is that of the test."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(run, "_INIT_TIMEOUT", 60)  # on a busy machine it may take more than ten seconds to answer
    wandb.teardown()  # a process of an earlier test uses another server
    with serving(monkeypatch) as started:
        yield started
        started.dead = False
        wandb.teardown()
