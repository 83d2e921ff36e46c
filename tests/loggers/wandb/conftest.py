"""A folder apart from the user's W&B, and a W&B server on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from tests.loggers.wandb.offline_runs import isolate
from tests.loggers.wandb.server import WandbServer, serving


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    isolate(monkeypatch, tmp_path)
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server with nothing on it; the current folder is the test's."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # what an earlier test has started knows another server
    with serving(monkeypatch) as started:
        yield started
        started.dead = False
        wandb.teardown()
