"""Runs online, against a small server on this machine: what goes on is the same run, and sends no number twice."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import wandb
from pytorch_lightning import Callback, Trainer

from lnsgd.cli import main
from lnsgd.training import train
from tests.loggers.wandb.server import LOGGER, SentRun, WandbServer
from tests.stopped_runs import CONFIG, EPOCH_STEPS, STEPS, fit_until_stopped, write_configs


class FailAfter(Callback):
    """What a killed run looks like to its tracker: no checkpoint after the step, everything sent."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


def assert_each_number_once(run: SentRun, metrics: Path, but: str = "") -> None:
    """Everything in ``metrics.csv`` was sent, once but for one of them, and steps never go back."""
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
def test_stopped_by_a_signal_it_goes_on_as_the_same_run(server: WandbServer, tmp_path: Path, step: int) -> None:
    write_configs(tmp_path, step=step)
    options = ["--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    fit_until_stopped("--config", "stopped.yaml", *options)
    assert server.only_run.finished
    assert max(row["trainer/global_step"] for row in server.only_run.history) == step
    main(["fit", "--config", "plain.yaml", *options])
    assert server.only_run.history[-1]["trainer/global_step"] == STEPS
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv")


def test_replicas_stopped_by_a_signal_go_on_as_the_same_run(server: WandbServer, tmp_path: Path) -> None:
    write_configs(tmp_path, step=6)
    # Momentum asks for the general engine, which is compiled.
    plain = ["--replicas.seeds", "2", "--replicas.engine", "kernel", "--model.optimizer.momentum", "0"]
    options = [*plain, "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    fit_until_stopped("--config", "stopped.yaml", *options)
    main(["fit", "--config", "plain.yaml", *options])
    # The end of an epoch repeats how many have diverged.
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv", but="diverged")
    assert {"measures", "replicas"} <= server.only_run.summary.keys()
    (file,) = [content for path, content in server.uploads.items() if path.endswith("replicas.table.json")]
    replicas = json.loads(file)
    assert replicas["columns"][:2] == ["replica", "seed"]
    assert [row[:2] for row in replicas["data"]] == [[0, 0], [1, 1]]


def test_what_a_killed_run_had_sent_is_not_sent_again(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    with pytest.raises(RuntimeError, match="killed"):
        train(options, callbacks=[FailAfter(8)])
    wandb.finish()
    assert max(row["trainer/global_step"] for row in server.only_run.history) == 8  # the checkpoint is of step 5
    main(options)
    assert_each_number_once(server.only_run, tmp_path / "run" / "metrics.csv")


def test_rows_that_never_reached_the_server_are_sent(server: WandbServer, tmp_path: Path) -> None:
    """What a killed run had noted as sent may have been lost on the way."""
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
