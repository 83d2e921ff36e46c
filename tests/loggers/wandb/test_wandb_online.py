"""Weights & Biases online, against a small server on this machine."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import wandb
import yaml
from pytorch_lightning import Callback, Trainer

from lnsgd.cli import main
from lnsgd.figures import command, sweeps
from lnsgd.loggers import wandb_run
from lnsgd.loggers.wandb_group import WandbGroup
from lnsgd.sweep.grid import read_sweep
from lnsgd.training import train
from tests.figures import tiny as tiny_figures
from tests.report import report_folders
from tests.stopped_runs import CONFIG, EPOCH_STEPS, STEPS, write_configs
from tests.wandb_files import isolate
from tests.wandb_server import SentRun, WandbServer, serving

LOGGER = ["--trainer.logger", "lnsgd.loggers.WandbLogger"]


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


class FailAfter(Callback):
    """What a killed run looks like to its tracker: no checkpoint after the step, everything sent."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("killed")


class Then(Callback):
    """Does something after a step."""

    def __init__(self, step: int, change: Callable[[], object]) -> None:
        self.step, self.change = step, change

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            self.change()


def kill_wandb() -> None:
    """Kills W&B's own process, which takes what this one logs."""
    of_wandb = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"wandb-core" in (entry / "cmdline").read_bytes() and _parent(entry) == os.getpid()
    ]
    assert of_wandb
    for process in of_wandb:
        os.kill(process, signal.SIGKILL)


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def only(server: WandbServer) -> SentRun:
    (run,) = server.runs.values()
    return run


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


def stop(*args: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", *args])
    assert ended.value.code == 75


@pytest.mark.parametrize("step", [3, EPOCH_STEPS], ids=["within-an-epoch", "at-its-end"])
def test_stopped_by_a_signal_it_goes_on_as_the_same_run(server: WandbServer, tmp_path: Path, step: int) -> None:
    write_configs(tmp_path, step=step)
    options = ["--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    stop("--config", "stopped.yaml", *options)
    assert only(server).finished
    assert max(row["trainer/global_step"] for row in only(server).history) == step
    main(["fit", "--config", "plain.yaml", *options])
    assert only(server).history[-1]["trainer/global_step"] == STEPS
    assert_each_number_once(only(server), tmp_path / "run" / "metrics.csv")


def test_replicas_stopped_by_a_signal_go_on_as_the_same_run(server: WandbServer, tmp_path: Path) -> None:
    write_configs(tmp_path, step=6)
    # Momentum asks for the general engine, which is compiled.
    plain = ["--replicas.seeds", "2", "--replicas.engine", "kernel", "--model.optimizer.momentum", "0"]
    options = [*plain, "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    stop("--config", "stopped.yaml", *options)
    main(["fit", "--config", "plain.yaml", *options])
    # The end of an epoch repeats how many have diverged.
    assert_each_number_once(only(server), tmp_path / "run" / "metrics.csv", but="diverged")
    assert {"measures", "replicas"} <= only(server).summary.keys()
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
    assert max(row["trainer/global_step"] for row in only(server).history) == 8  # the checkpoint is of step 5
    main(options)
    assert_each_number_once(only(server), tmp_path / "run" / "metrics.csv")


def test_rows_that_never_reached_the_server_are_sent(server: WandbServer, tmp_path: Path) -> None:
    """What a killed run had noted as sent may have been lost on the way."""
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["fit", "--config", "plain.yaml", "--run_dir", "run", "--ckpt_path", "auto", *LOGGER]
    with pytest.raises(RuntimeError, match="killed"):
        train(options, callbacks=[FailAfter(8)])
    wandb.finish()
    run = only(server)
    run.lines = {n: line for n, line in run.lines.items() if json.loads(line)["trainer/global_step"] <= 6}
    run.summary["trainer/global_step"] = 6
    main(options)
    assert_each_number_once(run, tmp_path / "run" / "metrics.csv")


def test_checkpoints_are_artifacts(server: WandbServer, tmp_path: Path) -> None:
    """At the ends of the three epochs and at the stop within the second; the last is final."""
    write_configs(tmp_path, step=EPOCH_STEPS + 2)
    options = ["--run_dir", "run", "--ckpt_path", "auto", *LOGGER, "--trainer.logger.log_model", "all"]
    stop("--config", "stopped.yaml", *options)
    main(["fit", "--config", "plain.yaml", *options])
    models = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert {model["artifactCollectionName"] for model in models} == {f"model-{next(iter(server.runs))}"}
    aliases = [{alias["alias"] for alias in model["aliases"]} for model in models]
    assert aliases == [{"latest"}, {"latest"}, {"latest"}, {"latest"}, {"latest", "final"}]
    # The server keeps the last two as one version.
    assert models[-1]["digest"] == models[-2]["digest"]
    assert len({model["digest"] for model in models}) == 4
    last = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    number = server.artifacts.index(models[-1]) + 1
    assert server.uploads[f"artifacts/A{number}/model.ckpt"] == last


def test_only_the_final_checkpoint(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "true"])
    (model,) = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert {alias["alias"] for alias in model["aliases"]} == {"latest", "final"}


def test_the_best_checkpoint_of_a_callback_that_judges(server: WandbServer, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG)
    judge = {"monitor": "val/loss", "mode": "max"}  # the loss falls: the first is the best
    config["trainer"]["callbacks"].append(
        {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {**judge, "save_last": True}}
    )
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "judged.yaml", "--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "true"])
    models = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert [{alias["alias"] for alias in model["aliases"]} for model in models] == [
        {"latest", "best"},
        {"latest", "final"},
    ]
    assert models[0]["digest"] != models[1]["digest"]


@pytest.mark.parametrize(
    "change",
    ["revoked", pytest.param("dead", marks=pytest.mark.slow)],  # W&B tries for 20 s to reach a dead server
)
def test_a_server_that_fails_in_the_middle_stops_nothing(
    server: WandbServer, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(wandb_run, "_FINISH_TIMEOUT", 1)
    (tmp_path / "plain.yaml").write_text(CONFIG)
    options = ["--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "all"]
    train(["fit", "--config", "plain.yaml", *options], callbacks=[Then(3, lambda: setattr(server, change, True))])
    assert (tmp_path / "run" / "finished.json").exists()
    assert len([line for line in told if "takes no more tables and checkpoints" in line]) == 1
    (hint,) = [line for line in told if "wandb sync" in line]
    assert list((tmp_path / hint.rpartition("wandb sync ")[2]).glob("run-*.wandb"))


@pytest.mark.parametrize("online", [True, False])
def test_wandb_killed_in_the_middle_stops_nothing(
    server: WandbServer, tmp_path: Path, told: list[str], online: bool
) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "undisturbed"])
    options = ["--run_dir", "run", *LOGGER, "--trainer.logger.offline", str(not online).lower()]
    train(["fit", "--config", "plain.yaml", *options], callbacks=[Then(3, kill_wandb)])
    assert (tmp_path / "run" / "finished.json").exists()
    assert len([line for line in told if "own process has died" in line]) == 1
    assert not [line for line in told if "takes no more" in line]
    assert len([line for line in told if "wandb sync" in line]) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "undisturbed" / "metrics.csv").read_text()


def test_a_revoked_key_is_an_offline_run(server: WandbServer, tmp_path: Path, told: list[str]) -> None:
    server.revoked = True
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER])
    assert len([line for line in told if "kept offline" in line and "not reached" in line]) == 1
    assert (tmp_path / "run" / "finished.json").exists()
    assert not server.runs


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more figures in the catalogue: one of replicas, one trained seed by seed."""
    (tmp_path / "one").mkdir()
    monkeypatch.setitem(command.FIGURES, "tiny", tiny_figures.figure(tmp_path))
    monkeypatch.setitem(command.FIGURES, "seeds", tiny_figures.figure_seed_by_seed(tmp_path / "one"))


def about(server: WandbServer) -> list[tuple[str, ...]]:
    """Project, group, job type and name of every run."""
    keys = ("project", "groupName", "jobType", "displayName")
    return sorted(tuple(run.about[key] for key in keys) for run in server.runs.values())


def test_arms_and_claims_of_a_figure_are_one_group(server: WandbServer, tiny: None, tmp_path: Path) -> None:
    main(["reproduce", "tiny", "--wandb", "papers", "--out", "out"])
    assert about(server) == [
        ("papers", "tiny ci", "claims", "tiny ci claims"),
        ("papers", "tiny ci", "train", "p = 0"),
        ("papers", "tiny ci", "train", "p = 0.5"),
    ]
    claims = server.runs[(tmp_path / "out" / "wandb-run-id").read_text().strip()]
    assert claims.summary["figure"]["_type"] == "image-file"
    (picture,) = [content for path, content in server.uploads.items() if "media/images/figure" in path]
    assert picture.startswith(b"\x89PNG")
    (table,) = [json.loads(sent) for path, sent in server.uploads.items() if path.endswith("claims.table.json")]
    kept = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert table["columns"] == list(kept[0])
    assert [row["paper"] for row in kept] == ["some", 0.0]
    kept[1]["paper"] = "0"  # as it is printed
    assert table["data"] == [list(row.values()) for row in kept]
    logged = {name for run in server.runs.values() for row in run.history for name in row}
    # Of the two seeds of each arm the first.
    assert [name for name in logged if "firing_rate" in name] == ["firing_rate/train/replica0/net.activations.0"]
    assert [run.about["tags"] for run in server.runs.values() if run.about["jobType"] == "train"] == [
        ["p = 0"],
        ["p = 0.5"],
    ]


def test_a_figure_again_has_the_same_runs(server: WandbServer, tiny: None, tmp_path: Path) -> None:
    main(["reproduce", "seeds", "--wandb", "--seeds", "1", "--out", "out"])
    before = about(server)
    assert before == [
        ("lnsgd", "tiny ci", "claims", "tiny ci claims"),
        ("lnsgd", "tiny ci", "train", "p = 0 seed 0"),
        ("lnsgd", "tiny ci", "train", "p = 0.5 seed 0"),
    ]
    claims = server.runs[(tmp_path / "out" / "wandb-run-id").read_text().strip()]
    main(["reproduce", "seeds", "--wandb", "--seeds", "1", "--out", "out"])
    assert about(server) == before
    rows = claims.history
    assert [row["_step"] for row in rows] == [0, 1]
    assert claims.summary["_step"] == 1  # the newest is shown
    assert rows[0]["claims"]["sha256"] == rows[1]["claims"]["sha256"]


def test_the_group_of_a_sweep(server: WandbServer, tmp_path: Path) -> None:
    """Its runs are those of a sweep, so it is enough that its file names the group and nothing else changes."""
    figure, group = tiny_figures.swept_figure(tmp_path), WandbGroup("tiny ci", "papers")
    for wandb_group, name in ((None, "without.yaml"), (group, "with.yaml")):
        sweeps._write_sweep(figure, "ci", "p = 0", 1, tmp_path / name, wandb_group)
    without, tracked = (read_sweep(tmp_path / name) for name in ("without.yaml", "with.yaml"))
    assert (without.wandb, tracked.wandb) == (None, group)
    assert (tracked.base, tracked.options, tracked.axes) == (without.base, without.options, without.axes)


def test_report_is_a_run(server: WandbServer, tmp_path: Path) -> None:
    report_folders.figure(tmp_path / "tiny")
    report_folders.run(tmp_path / "r")
    main(["report", "tiny", "r", "--out", "pages/all.html", "--wandb", "papers"])
    run = only(server)
    assert [run.about.get(key) for key in ("project", "jobType", "displayName")] == ["papers", "report", "all"]
    sent = {Path(path).name.partition("_")[0]: content for path, content in server.uploads.items() if "/media/" in path}
    assert sent["report"] == (tmp_path / "pages" / "all.html").read_bytes()
    assert sent["tiny.png"] == (tmp_path / "tiny" / "tiny.png").read_bytes() or sent["tiny.png"].startswith(b"\x89PNG")
    (table,) = [json.loads(sent) for path, sent in server.uploads.items() if path.endswith("claims.table.json")]
    assert table["columns"][0] == "figure"
    assert [row[1] for row in table["data"]] == [claim.claim for claim in report_folders.CLAIMS]
    main(["report", "tiny", "--out", "pages/all.html", "--wandb", "papers"])
    assert len(server.runs) == 2


@pytest.mark.parametrize("args", [["reproduce", "tiny"], ["report", "folder"]], ids=["reproduce", "report"])
def test_a_project_that_wandb_does_not_take_is_refused_before_anything_is_written(
    server: WandbServer, tiny: None, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([*args, "--wandb", "me/papers"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "W&B project 'me/papers'" in line
    assert sorted(tmp_path.rglob("*")) == before
