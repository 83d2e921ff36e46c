"""Weights & Biases, kept offline and read back from the run's file."""

import json
import logging
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from lnsgd.cli import main

CONFIG = Path(__file__).parents[1] / "configs" / "mnist.yaml"

# The main config, made small: all measures, five steps an epoch.
SMALL = [
    *("--config", str(CONFIG), "--data.source", "sample", "--data.subset", "250", "--data.batch_size", "50"),
    *("--model.net.widths", "[784, 6, 10]", "--model.label_noise.p", "0.3", "--trainer.accelerator", "cpu"),
    *("--trainer.limit_val_batches", "1", "--trainer.log_every_n_steps", "2"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.logger", "lnsgd.loggers.WandbLogger"),
]
QUICK = [*SMALL, "--trainer.callbacks", "null", "--trainer.max_steps", "3"]


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """No key, no settings of the user, nothing written outside the folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("NETRC", str(folder / "no-netrc"))
    for kind in ("CONFIG", "CACHE", "DATA"):
        patch.setenv(f"WANDB_{kind}_DIR", str(folder / "wandb-home"))
    patch.chdir(folder)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    isolate(monkeypatch, tmp_path)
    yield tmp_path
    wandb.teardown()


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


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a run of two epochs, without a key; resumed after the first."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        main(["fit", *SMALL, "--run_dir", "run", "--trainer.max_epochs", "1"])
        main(["fit", *SMALL, "--run_dir", "run", "--trainer.max_epochs", "2", "--ckpt_path", "last"])
        wandb.teardown()  # flushes the files
        yield folder / "run"


# Reading a .wandb file: LevelDB's log format, blocks of 32 KiB, records split over them.

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_wandb(path: Path) -> list[Record]:
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    records, part, at = [], b"", FILE_HEADER
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # a header does not fit into the rest of the block
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if kind in (FULL, LAST):
            records.append(Record.FromString(part))
            part = b""
    return records


def runs_below(run_dir: Path) -> list[list[Record]]:
    """Records of each W&B run in a run's folder, in the order they were started."""
    found = sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [read_wandb(path) for path in found]


def history(records: list[Record]) -> dict[int, dict[str, Any]]:
    """Everything logged, by ``trainer/global_step``."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        if not record.HasField("history"):
            continue
        row: dict[str, Any] = {}
        for item in record.history.item:
            path = [item.key] if item.key else list(item.nested_key)
            inner = row
            for name in path[:-1]:  # an image is a dictionary, one item a field
                inner = inner.setdefault(name, {})
            inner[path[-1]] = json.loads(item.value_json)
        rows.setdefault(row["trainer/global_step"], {}).update(row)
    return rows


def config(records: list[Record]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for record in records:
        update = record.run.config.update if record.HasField("run") else record.config.update
        settings.update({item.key: json.loads(item.value_json) for item in update if item.key})
    return settings


def merged_history(run_dir: Path) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for records in runs_below(run_dir):
        for step, row in history(records).items():
            rows.setdefault(step, {}).update(row)
    return rows


def assert_same_numbers(run_dir: Path) -> None:
    """Every number of metrics.csv is in W&B at the same step, and the other way round."""
    tracked = merged_history(run_dir)
    table = pd.read_csv(run_dir / "metrics.csv").set_index("step")
    assert list(table.index) == sorted(tracked)
    for step, row in table.iterrows():
        kept = {name: value for name, value in row.items() if not math.isnan(value)}
        scalars = {
            name: value
            for name, value in tracked[step].items()
            if isinstance(value, int | float) and not name.startswith("_") and name != "trainer/global_step"
        }
        assert scalars == kept, f"step {step}"


def test_every_number_is_that_of_the_csv(tracked: Path) -> None:
    assert_same_numbers(tracked)
    rows = merged_history(tracked)
    assert sorted(rows) == [0, 2, 4, 5, 6, 8, 10]  # measured at 0, 5, 10; the batch loss every second step
    assert {"train/loss", "val/accuracy", "hessian_trace/train", "hessian_trace/train/stderr"} <= rows[10].keys()


def test_resolved_config_is_there(tracked: Path) -> None:
    settings = config(runs_below(tracked)[0])
    assert settings["model"]["init_args"]["label_noise"]["init_args"]["p"] == 0.3
    assert settings["model"]["init_args"]["net"]["init_args"]["activation"] == "relu"  # a default, resolved
    assert settings["data"]["init_args"]["subset"] == 250
    assert settings["trainer"]["max_epochs"] == 1
    assert settings["seed_everything"] == 0


def test_steps_are_the_axis(tracked: Path) -> None:
    """Without this W&B draws everything over its own counter, which is not the step of training."""
    metrics = [record.metric for record in runs_below(tracked)[0] if record.HasField("metric")]
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
    assert axes["*"] == "trainer/global_step"


def test_firing_histograms_are_images(tracked: Path) -> None:
    image = merged_history(tracked)[10]["firing_histograms/train/net.activations.0"]
    assert image["_type"] == "images/separated"
    (name,) = image["filenames"]
    (file,) = tracked.glob(f"wandb/offline-run-*/files/{name}")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_resumed_run_is_the_same_run(tracked: Path) -> None:
    runs = runs_below(tracked)
    assert len(runs) == 2
    ids = {record.run.run_id for records in runs for record in records if record.HasField("run")}
    assert ids == {(tracked / "wandb-run-id").read_text().strip()}
    assert max(history(runs[0])) == 5
    assert min(history(runs[1])) == 6


def test_without_a_key_it_goes_offline_and_says_how_to_send(alone: Path, told: list[str]) -> None:
    main(["fit", *QUICK, "--run_dir", "run"])
    (hint,) = [line for line in told if "wandb sync" in line]
    folder = Path(hint.rpartition("wandb sync ")[2])
    assert list(folder.glob("run-*.wandb")), hint
    assert (alone / folder).resolve().is_relative_to(alone / "run")


def test_offline_on_request_also_with_a_key(alone: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """The key is a fake and the server is dead: only a run that never asks it is over without a complaint."""
    with_key(monkeypatch)
    main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.offline", "true"])
    assert not [line for line in told if "not reached" in line]
    assert [line for line in told if "wandb sync" in line]
    wandb.teardown()
    assert len(runs_below(alone / "run")) == 1


def with_key(patch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    patch.setenv("WANDB_API_KEY", "f" * 40)


def test_dead_server_does_not_stop_training(alone: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    with_key(monkeypatch)
    monkeypatch.setenv("WANDB_X_DISABLE_VIEWER", "true")  # W&B asks who the user is first, twice for 5 s
    settings = wandb.Settings
    monkeypatch.setattr(wandb, "Settings", lambda **given: settings(**{**given, "init_timeout": 1}))
    main(["fit", *QUICK, "--run_dir", "run"])
    assert len([line for line in told if "kept offline" in line and "not reached" in line]) == 1
    assert len([line for line in told if "wandb sync" in line]) == 1
    assert (alone / "run" / "finished.json").exists()
    wandb.teardown()
    assert_same_numbers(alone / "run")


def test_environment_is_left_as_it_was(alone: Path) -> None:
    """``offline=True`` of Lightning's own logger would keep every later run of the process offline."""
    before = {name: value for name, value in os.environ.items() if name.startswith("WANDB")}
    main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.offline", "true"])
    wandb.teardown()
    assert {name: value for name, value in os.environ.items() if name.startswith("WANDB")} == before


def test_run_again_from_its_record_is_another_run(tracked: Path, alone: Path) -> None:
    main(["fit", "--config", str(tracked / "config.yaml"), "--run_dir", str(alone / "again")])
    assert (alone / "again" / "wandb-run-id").read_text() != (tracked / "wandb-run-id").read_text()


def test_two_runs_of_one_process_are_two_runs(alone: Path) -> None:
    for name in ("one", "two"):
        main(["fit", *QUICK, "--run_dir", name])
    ids = {(alone / name / "wandb-run-id").read_text() for name in ("one", "two")}
    assert len(ids) == 2
    wandb.teardown()
    assert [len(runs_below(alone / name)) for name in ("one", "two")] == [1, 1]
