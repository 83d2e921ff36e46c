"""Where the callbacks of any Trainer write: never into the working directory, and never over another run's table."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lnsgd.callbacks import ClassAssociation, DistanceFromInit
from tests.callbacks.foreign_project import Project, loader

TABLE = "measures.parquet"


def fit(epochs: int = 1, checkpoint: Path | None = None, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"accelerator": "cpu", "callbacks": [DistanceFromInit()], "max_epochs": epochs, **options}
    trainer = pl.Trainer(**quiet)
    pl.seed_everything(1, verbose=False)
    trainer.fit(Project(), loader(), ckpt_path=checkpoint, weights_only=False)
    return trainer


def tables(folder: Path) -> dict[str, int]:
    """The number of measured steps in each table below a folder, by the folder of the table."""
    return {str(path.parent.relative_to(folder)): pd.read_parquet(path).step.nunique() for path in folder.rglob(TABLE)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    yield tmp_path
    wandb.finish()


class Remote(Logger):
    """A logger that has a folder for all of its runs, as that of MLflow, and none for each."""

    name, version, save_dir = "remote", "0", "mlruns"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...


FOLDERLESS = {
    "none": lambda: False,
    "remote": Remote,
    "wandb": lambda: WandbLogger(project="test"),
    "both": lambda: [Remote(), WandbLogger(project="test")],
}


@pytest.mark.parametrize("logger", FOLDERLESS.values(), ids=FOLDERLESS)
def test_without_a_folder_of_the_logger_each_run_gets_a_new_one(here, logger):
    for _ in range(2):
        fit(logger=logger(), enable_checkpointing=False)
    assert tables(here) == {"runs/Project": 2, "runs/Project-2": 2}
    assert not (here / TABLE).exists()


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_folder_of_the_logger_is_used_even_if_it_is_not_the_first(here, kind):
    fit(logger=[WandbLogger(project="test"), kind("logs")])
    assert tables(here) == {"logs/lightning_logs/version_0": 2}


def test_given_folder_is_used_once_and_its_table_is_kept(here):
    fit(default_root_dir=here / "mine")
    before = (here / "mine" / TABLE).read_bytes()
    fit(default_root_dir=here / "mine", epochs=2)
    assert tables(here) == {"mine": 2, "mine/runs/Project": 3}
    assert (here / "mine" / TABLE).read_bytes() == before


def test_folder_of_a_logger_that_is_used_twice_keeps_its_first_table(here):
    for epochs in (1, 2):
        fit(logger=TensorBoardLogger("logs", version=0), epochs=epochs)
    home = "logs/lightning_logs/version_0"
    assert tables(here) == {home: 2, f"{home}/runs/Project": 3}


def test_logger_that_names_the_working_directory_has_no_folder(here):
    fit(logger=CSVLogger(".", name="", version=""))
    assert tables(here) == {"runs/Project": 2}


def test_resumed_run_continues_its_table_wherever_it_is(here):
    fit()
    fit()  # another run
    (checkpoint,) = here.glob("checkpoints/*-v1.ckpt")
    fit(checkpoint=checkpoint, epochs=3)
    assert tables(here) == {"runs/Project": 2, "runs/Project-2": 4}


def test_trainer_that_fits_again_continues_its_table(here):
    trainer = fit()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, loader())
    assert tables(here) == {"runs/Project": 3}


def test_all_files_of_a_run_are_in_one_folder_which_is_removed_if_nothing_was_written(here):
    trainer = fit(callbacks=[DistanceFromInit(), ClassAssociation(splits=["train"])])
    assert {path.parent.name for path in here.rglob("*.parquet")} == {"Project"}
    assert (here / "runs" / "Project" / "firings.safetensors").exists()
    del trainer
    gc.collect()
    assert not list(here.rglob(".lock"))


def test_two_processes_write_one_table(here):
    fit(strategy="ddp_fork", devices=2, enable_checkpointing=False)
    assert tables(here) == {"runs/Project": 2}


def test_folder_that_cannot_be_made_is_one_error(here):
    (here / "runs").write_text("a file")
    with pytest.raises(OSError, match="runs"):
        fit()
