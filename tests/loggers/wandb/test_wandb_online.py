"""Online runs with a small server on this machine: a resumed run is the same run and sends no number twice."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import wandb
from pytorch_lightning import Callback, Trainer

from lnsgd.cli import main
from lnsgd.loggers.wandb.run import is_offline, start_run
from lnsgd.training.cli import train
from tests.loggers.wandb.server import LOGGER, SentRun, WandbServer
from tests.stopped_runs import CONFIG, EPOCH_STEPS, STEPS, fit_until_stopped, write_configs


class FailAfter(Callback):
    """Simulates a killed run: everything is sent, and no checkpoint is saved after the step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def assert_each_number_once(run: SentRun, metrics: Path, but: str = "") -> None:
    """Check that everything in ``metrics.csv`` was sent, once except for ``but``, in the order of steps."""
    steps = [row["trainer/global_step"] for row in run.history]
    assert steps == sorted(steps)
    sent = Counter(
        (row["trainer/global_step"], name)
        for row in run.history
        for name in row
        if name not in ("epoch", "trainer/global_step", but) and not name.startswith("_")
    )
    assert set(sent.values()) == {1}, [number for number, times in sent.items() if times > 1]
    table = pd.read_csv(metrics).set_index("step").drop(columns="epoch")
    kept = {(step, name) for step, row in table.iterrows() for name, value in row.items() if pd.notna(value)}
    objects = ("measures", "replicas")  # tables
    assert {(step, name) for step, name in sent if name not in objects} == {k for k in kept if k[1] != but}


@pytest.mark.parametrize("step", [3, EPOCH_STEPS], ids=["within-an-epoch", "at-its-end"])
def test_run_stopped_by_a_signal_resumes_the_same_wandb_run(server: WandbServer, tmp_path: Path, step: int) -> None:
    write_configs(tmp_path, step=step)
    options = ["--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    fit_until_stopped("--config", "stopped.yaml", *options)
    assert server.only_run.finished
    assert max(row["trainer/global_step"] for row in server.only_run.history) == step
    main(["fit", "--config", "plain.yaml", *options])
    assert server.only_run.history[-1]["trainer/global_step"] == STEPS
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv")


def test_replicas_stopped_by_a_signal_resume_the_same_wandb_run(server: WandbServer, tmp_path: Path) -> None:
    write_configs(tmp_path, step=6)
    # Momentum would need the general engine, which is compiled.
    plain = ["--replicas.seeds", "2", "--replicas.engine", "kernel", "--model.optimizer.momentum", "0"]
    options = [*plain, "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    fit_until_stopped("--config", "stopped.yaml", *options)
    main(["fit", "--config", "plain.yaml", *options])
    # The number of diverged replicas is sent again at the end of an epoch.
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv", but="diverged")
    assert {"measures", "replicas"} <= server.only_run.summary.keys()
    (file,) = [content for path, content in server.uploads.items() if path.endswith("replicas.table.json")]
    replicas = json.loads(file)
    assert replicas["columns"][:2] == ["replica", "seed"]
    assert [row[:2] for row in replicas["data"]] == [[0, 0], [1, 1]]


def test_numbers_of_a_killed_run_are_not_sent_again(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    with pytest.raises(RuntimeError, match="killed"):
        train(options, callbacks=[FailAfter(8)])
    wandb.finish()
    assert max(row["trainer/global_step"] for row in server.only_run.history) == 8  # the checkpoint was saved at step 5
    main(options)
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv")


def test_rows_that_the_server_did_not_receive_are_sent(server: WandbServer, tmp_path: Path) -> None:
    """Rows that a killed run has recorded as sent may not have arrived."""
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    with pytest.raises(RuntimeError, match="killed"):
        train(options, callbacks=[FailAfter(8)])
    wandb.finish()
    run = server.only_run
    run.lines = {n: line for n, line in run.lines.items() if json.loads(line)["trainer/global_step"] <= 6}
    run.summary["trainer/global_step"] = 6
    main(options)
    assert_each_number_once(run, tmp_path / "run" / "metrics.csv")


def test_run_beside_an_active_run_of_the_user_is_sent(server: WandbServer, tmp_path: Path) -> None:
    """Beside an active run ``wandb.login`` is false, with any key."""
    own = wandb.init(project="own", reinit="create_new", settings=wandb.Settings(console="off"))
    wandb.run = own  # as in a notebook, where the next run does not continue this one
    run = start_run(False, project="lnsgd", dir=str(tmp_path), reinit="create_new")
    run.finish()
    own.finish()
    assert not is_offline(run)
    assert len(server.runs) == 2
