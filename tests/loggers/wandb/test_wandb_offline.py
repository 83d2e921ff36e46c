"""Offline W&B runs, read from their files."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from safetensors.torch import load_file

from lnsgd.cli import main
from tests.loggers.wandb.offline_runs import (
    QUICK,
    SMALL,
    artifacts,
    assert_same_numbers,
    config,
    history,
    isolate,
    merged_history,
    runs_below,
    table,
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Train a run of two epochs without a key, resumed after the first; return its folder."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        main(["fit", *SMALL, "--run_dir", "run", "--trainer.max_epochs", "1"])
        main(["fit", *SMALL, "--run_dir", "run", "--trainer.max_epochs", "2", "--ckpt_path", "last"])
        wandb.teardown()  # flushes the files
        yield folder / "run"


def test_numbers_equal_those_of_the_csv(tracked: Path) -> None:
    assert_same_numbers(tracked)
    rows = merged_history(tracked)
    assert sorted(rows) == [0, 2, 4, 5, 6, 8, 10]  # measured at 0, 5, 10; the batch loss every second step
    assert {"train/loss", "val/accuracy", "hessian_trace/train", "hessian_trace/train/stderr"} <= rows[10].keys()


def test_resolved_config_is_sent(tracked: Path) -> None:
    settings = config(runs_below(tracked)[0])
    assert settings["model"]["init_args"]["label_noise"]["init_args"]["p"] == 0.3
    assert settings["model"]["init_args"]["net"]["init_args"]["activation"] == "relu"  # a default, resolved
    assert settings["data"]["init_args"]["subset"] == 250
    assert settings["trainer"]["max_epochs"] == 1
    assert settings["seed_everything"] == 0


def test_training_step_is_the_axis(tracked: Path) -> None:
    """Otherwise W&B plots everything over its own counter, which is not the training step."""
    metrics = [record.metric for record in runs_below(tracked)[0] if record.HasField("metric")]
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
    assert axes["*"] == "trainer/global_step"


def test_firing_histograms_are_images(tracked: Path) -> None:
    image = merged_history(tracked)[10]["firing_histograms/train/net.activations.0"]
    assert image["_type"] == "images/separated"
    (name,) = image["filenames"]
    (file,) = tracked.glob(f"wandb/offline-run-*/files/{name}")
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("step", [0, 5, 10])
def test_firing_rates_are_native_histograms(tracked: Path, split: str, step: int) -> None:
    """The mean rate of the six neurons equals the active fraction, up to the width of a bin."""
    row = merged_history(tracked)[step]
    shown = row[f"firing_rate/{split}/net.activations.0"]
    assert shown["_type"] == "histogram"
    assert len(shown["bins"]) == len(shown["values"]) + 1 == 65
    assert (shown["bins"][0], shown["bins"][-1]) == (0, 1)
    assert sum(shown["values"]) == 6
    lowest = sum(count * edge for count, edge in zip(shown["values"], shown["bins"])) / 6
    assert lowest <= row[f"active_fraction/{split}/net.activations.0"] <= lowest + 1 / 64


def test_last_firing_rates_equal_the_stored_counts(tracked: Path) -> None:
    """``firings.safetensors`` counts on how many of the 250 examples a neuron fires, by class."""
    (fired,) = load_file(tracked / "firings.safetensors").values()
    counts, _ = np.histogram((fired.sum(0) / 250).numpy(), 64, (0, 1))
    assert merged_history(tracked)[10]["firing_rate/train/net.activations.0"]["values"] == counts.tolist()


def test_final_measures_are_a_table(tracked: Path) -> None:
    """It is sent at the end of each of the two commands, with the last value of every number."""
    rows = merged_history(tracked)
    assert [step for step, row in rows.items() if "measures" in row] == [5, 10]
    shown = table(tracked, rows[10]["measures"]).set_index(["measure", "split", "layer"])
    assert list(shown.columns) == ["step", "value", "stderr"]
    kept = pd.read_parquet(tracked / "measures.parquet")
    kept = kept[kept.step == 10].set_index(["measure", "split", "layer"])
    assert set(shown.index) == set(kept.index)
    for key, row in shown.iterrows():
        assert (row.step, row.value) == (10, kept.value[key])
        assert row.stderr == kept.stderr[key] or (pd.isna(row.stderr) and pd.isna(kept.stderr[key]))
    assert shown.stderr.notna().sum() > 0


def test_checkpoints_are_not_sent_by_default(tracked: Path) -> None:
    assert {artifact.type for artifact in artifacts(tracked)} == {"run_table"}


def test_checkpoints_are_artifacts_offline(alone: Path) -> None:
    """One epoch is saved at its end; the copies to be sent are intact checkpoints."""
    main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.log_model", "all"])
    wandb.teardown()
    models = [artifact for artifact in artifacts(alone / "run") if artifact.type == "model"]
    assert [set(model.aliases) for model in models] == [{"latest"}, {"latest", "final"}]
    (name,) = {model.name for model in models}
    assert name == f"model-{(alone / 'run' / 'wandb-run-id').read_text().strip()}"
    for model in models:
        (entry,) = model.manifest.contents
        assert entry.path == "model.ckpt"
        copied = Path(entry.local_path)
        assert copied != alone / "run" / "checkpoints" / "last.ckpt"
        assert torch.load(copied, weights_only=True)["global_step"] == 3


def test_invalid_log_model_and_project_are_refused(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, message in ((["log_model", "sometimes"], "log_model"), (["project", "a/b"], "W&B project 'a/b'")):
        with pytest.raises(SystemExit) as ended:
            main(["fit", *QUICK, "--run_dir", "run", f"--trainer.logger.{option[0]}", option[1]])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (alone / "run").exists()


def test_resumed_run_is_the_same_run(tracked: Path) -> None:
    runs = runs_below(tracked)
    assert len(runs) == 2
    ids = {record.run.run_id for records in runs for record in records if record.HasField("run")}
    assert ids == {(tracked / "wandb-run-id").read_text().strip()}
    assert max(history(runs[0])) == 5
    assert min(history(runs[1])) == 6


def test_run_without_key_is_offline_with_a_hint(alone: Path, told: list[str]) -> None:
    main(["fit", *QUICK, "--run_dir", "run"])
    (hint,) = [line for line in told if "wandb sync" in line]
    folder = Path(hint.rpartition("wandb sync ")[2])
    assert list(folder.glob("run-*.wandb")), hint
    assert (alone / folder).resolve().is_relative_to(alone / "run")


def test_environment_is_not_changed(alone: Path) -> None:
    """``offline=True`` of Lightning's logger would keep every later run of the process offline."""
    before = {name: value for name, value in os.environ.items() if name.startswith("WANDB")}
    main(["fit", *QUICK, "--run_dir", "run", "--trainer.logger.offline", "true"])
    wandb.teardown()
    assert {name: value for name, value in os.environ.items() if name.startswith("WANDB")} == before


def test_run_repeated_from_its_config_is_another_run(tracked: Path, alone: Path) -> None:
    main(["fit", "--config", str(tracked / "config.yaml"), "--run_dir", str(alone / "again")])
    assert (alone / "again" / "wandb-run-id").read_text() != (tracked / "wandb-run-id").read_text()


def test_two_runs_of_one_process_are_separate(alone: Path) -> None:
    for name in ("one", "two"):
        main(["fit", *QUICK, "--run_dir", name])
    ids = {(alone / name / "wandb-run-id").read_text() for name in ("one", "two")}
    assert len(ids) == 2
    wandb.teardown()
    assert [len(runs_below(alone / name)) for name in ("one", "two")] == [1, 1]
