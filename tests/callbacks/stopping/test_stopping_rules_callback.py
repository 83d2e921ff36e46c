"""Stopping rules in a Trainer and in the command: where a run ends, its records, and its exact resume."""

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch

from lnsgd import rng
from lnsgd.callbacks import Margin, StopAtLoss, StopAtMargin, StopAtZeroError
from lnsgd.callbacks.stopping.rule import StoppingRule
from lnsgd.cli import main
from lnsgd.data import MNIST, InMemory
from lnsgd.loggers import CSVLogger
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier, Regressor
from lnsgd.runs.folder import RunFolder
from tests.stopped_runs import STEPS, assert_same_run, write_configs

# --- the command


def rule(loss: float, **schedule: Any) -> dict[str, Any]:
    return {"class_path": "lnsgd.callbacks.StopAtLoss", "init_args": {"loss": loss, **schedule}}


def with_callbacks(*callbacks: dict[str, Any]) -> list[str]:
    return [option for one in callbacks for option in ("--trainer.callbacks+", json.dumps(one))]


GRID = ["--replicas.seeds", "3", "--replicas.noise", "[0,0.5]"]


def fit(run_dir: str, *options: str, config: str = "plain") -> RunFolder:
    main(["fit", "--config", f"{config}.yaml", "--run_dir", run_dir, "--ckpt_path", "auto", *options])
    return RunFolder(Path(run_dir).resolve())


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)


def losses(run: RunFolder) -> pd.DataFrame:
    """Return the loss at every second step, a column per replica."""
    rows = pd.read_parquet(run.measures).query("measure == 'stopping_loss'")
    return rows.pivot(index="step", columns="replica", values="value")


def first_at_most(values: pd.Series, loss: float) -> int | None:
    return next((step for step, value in values.items() if value <= loss), None)


@pytest.fixture(scope="module")
def to_the_limit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Return runs whose rule is never satisfied: an ordinary one and a replicated one."""
    folder = tmp_path_factory.mktemp("limit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_configs(folder)
        never = with_callbacks(rule(0.0, every_n_steps=2))
        return {"alone": fit("alone", *never), "replicas": fit("replicas", *never, *GRID)}


def finished(run: RunFolder) -> dict[str, Any]:
    return dict(json.loads(run.finished.read_text()))


def test_run_ended_by_its_rule_is_recorded(
    to_the_limit: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    values = losses(to_the_limit["alone"])[0]
    enough = (values[6] + values[8]) / 2
    assert first_at_most(values, enough) == 8
    # Next to it a callback that looks at other steps; the run ends in the middle of an epoch.
    options = with_callbacks(
        rule(enough, every_n_steps=2), {"class_path": "lnsgd.callbacks.WeightNorms", "init_args": {"every_n_steps": 3}}
    )
    run = fit("run", *options)
    assert (finished(run)["steps"], finished(run)["stopped_by"]) == (8, "StopAtLoss")
    printed = capsys.readouterr().out
    assert f"StopAtLoss(loss={enough:g}) ended the run at step 8" in printed.splitlines() and "limit" not in printed
    state = torch.load(run.last_checkpoint, weights_only=False)
    assert state["global_step"] == 8
    limited = fit("limited", "--trainer.max_epochs", "-1", "--trainer.max_steps", "8")
    weights = torch.load(limited.last_checkpoint, weights_only=False)["state_dict"]
    torch.testing.assert_close(state["state_dict"], weights, rtol=0, atol=0)
    # The final network is measured and validated.
    rows = pd.read_parquet(run.measures)
    assert {*rows[rows["step"] == 8]["measure"]} == {
        "stopping_loss",
        "distance_from_init",
        *("norm", "bias_mean", "bias_max"),
    }
    last = pd.read_csv(run.metrics).set_index("step").loc[8]
    assert last[["stopping_loss/train", "distance_from_init", "val/loss", "val/accuracy", "train/loss"]].notna().all()
    assert first_at_most(losses(run)[0], enough) == 8
    # It has ended, also where the limits would allow more.
    for more in ([], ["--trainer.max_epochs", "9"]):
        assert fit("run", *options, *more) == run
        assert capsys.readouterr().out.endswith("has reached its end already\n")


def test_run_that_reached_its_limit_is_recorded(
    to_the_limit: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (finished(to_the_limit["alone"])["steps"], finished(to_the_limit["alone"])["stopped_by"]) == (STEPS, "limit")
    run = fit("run", *with_callbacks(rule(0.0), rule(1e-9)))
    assert f"The run reached its limit, step {STEPS}, before StopAtLoss(loss=0) or StopAtLoss(loss=1e-09)" in (
        capsys.readouterr().out.splitlines()
    )
    # There is more to do where the limits allow more.
    fit("run", *with_callbacks(rule(0.0), rule(1e-9)), "--trainer.max_epochs", "4")
    assert finished(run)["steps"] == STEPS + 5


def test_run_without_a_rule_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "stopped_by" not in finished(fit("run"))
    run = fit("replicas", *GRID)
    assert "stopped_by" not in finished(run)
    assert pd.read_csv(run.replicas)[["stopped_at", "stopped_by"]].isna().all(axis=None)
    assert "limit" not in capsys.readouterr().out


def test_replicas_stopped_by_their_rule_are_recorded(
    to_the_limit: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    values = losses(to_the_limit["replicas"])
    enough = values.loc[10].median()
    stops = {replica: first_at_most(values[replica], enough) for replica in values}
    assert None in stops.values() and len({*stops.values()}) > 2
    run = fit("run", *with_callbacks(rule(enough, every_n_steps=2)), *GRID)
    table = pd.read_csv(run.replicas, index_col="replica")
    assert table["stopped_at"].to_dict() == {replica: stop or STEPS for replica, stop in stops.items()}
    assert table["stopped_by"].to_dict() == {r: "StopAtLoss" if stop else "limit" for r, stop in stops.items()}
    assert table["diverged_at"].isna().all()
    assert (finished(run)["steps"], finished(run)["stopped_by"]) == (STEPS, "limit")
    limited = [*stops.values()].count(None)
    line = f"{limited} of 6 replicas reached the limit, step {STEPS}, before StopAtLoss(loss={enough:g})"
    assert line in capsys.readouterr().out.splitlines()
    found = losses(run)
    for replica, stop in stops.items():
        expected = values[replica].where(values.index <= (stop or STEPS)).ffill()
        pd.testing.assert_series_equal(found[replica], expected, check_names=False)


def test_run_ends_when_all_replicas_have_stopped(to_the_limit: dict[str, RunFolder]) -> None:
    values = losses(to_the_limit["replicas"])
    enough = values.min().max() * 1.0001  # all reach it, the last one late
    stops = [first_at_most(values[replica], enough) for replica in values]
    assert None not in stops and len({*stops}) > 1
    run = fit("run", *with_callbacks(rule(enough, every_n_steps=2)), *GRID)
    assert pd.read_csv(run.replicas)["stopped_at"].tolist() == stops
    assert (finished(run)["steps"], finished(run)["stopped_by"]) == (max(stops), "StopAtLoss")


@pytest.mark.parametrize(("grid", "step"), [([], 5), ([], 7), (GRID, 8)], ids=["epoch-end", "alone", "replicas"])
def test_run_resumed_after_a_signal_stops_at_the_same_step(
    to_the_limit: dict[str, RunFolder], grid: list[str], step: int
) -> None:
    """The signal comes before the rule is satisfied, or when some replicas have stopped."""
    values = losses(to_the_limit["replicas" if grid else "alone"])
    enough = values.loc[6 if grid else 10].median()
    stops = [first_at_most(values[replica], enough) or STEPS for replica in values]
    assert min(stops) < step < max(stops) if grid else step < stops[0] < STEPS
    options = [*with_callbacks(rule(enough, every_n_steps=2)), *grid]
    whole = fit("whole", *options)
    write_configs(Path(), step=step, name="SIGTERM")
    stopped = ["fit", "--config", "stopped.yaml", "--run_dir", "run", *options]
    with pytest.raises(SystemExit) as ended:
        main(stopped)
    assert ended.value.code == 75
    run = fit("run", *options)
    assert_same_run(run, whole)
    assert finished(run)["stopped_by"] == finished(whole)["stopped_by"]
    if grid:
        assert run.replicas.read_text() == whole.replicas.read_text()


@pytest.mark.parametrize("grid", [[], GRID], ids=["alone", "replicas"])
def test_run_that_died_before_recording_its_end_takes_no_step(
    to_the_limit: dict[str, RunFolder], grid: list[str]
) -> None:
    """It is resumed from the checkpoint of the step at which the rule ended it."""
    values = losses(to_the_limit["replicas" if grid else "alone"])
    enough = values.min().max() * 1.0001 if grid else (values.loc[6, 0] + values.loc[8, 0]) / 2
    options = [*with_callbacks(rule(enough, every_n_steps=2)), *grid]
    whole = fit("whole", *options)
    shutil.copytree("whole", "run")
    Path("run/finished.json").unlink()
    run = fit("run", *options)
    assert_same_run(run, whole)
    for name in ("steps", "epochs", "stopped_by"):
        assert finished(run)[name] == finished(whole)[name]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "negative-loss": ("StopAtLoss", {"loss": -0.1}, "StopAtLoss: loss = -0.1; give a number >= 0"),
    "nan-loss": ("StopAtLoss", {"loss": float("nan")}, "StopAtLoss: loss = nan; give a number >= 0"),
    "fraction": ("StopAtMargin", {"fraction": 99}, r"StopAtMargin: fraction = 99.0; give a number in (0, 1]"),
    "no-fraction": ("StopAtMargin", {"fraction": 0.0}, "StopAtMargin: fraction = 0.0"),
    "margin": ("StopAtMargin", {"margin": float("inf")}, "StopAtMargin: margin = inf; give a finite number"),
    "in-a-row": ("StopAtZeroError", {"in_a_row": 0}, "StopAtZeroError: in_a_row = 0; give an integer >= 1"),
    "clock": ("StopAtLoss", {"loss": 1.0, "max_overhead": 0.1}, "StopAtLoss: max_overhead = 0.1 would let the clock"),
    "schedules": ("StopAtLoss", {"loss": 1.0, "every_n_steps": 2, "every_n_epochs": 1}, "give one schedule"),
}


@pytest.mark.parametrize(("name", "arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_settings_are_refused(name: str, arguments: dict[str, Any], says: str) -> None:
    kinds: dict[str, Callable[..., StoppingRule]] = {
        "StopAtLoss": StopAtLoss,
        "StopAtMargin": StopAtMargin,
        "StopAtZeroError": StopAtZeroError,
    }
    with pytest.raises(ValueError) as error:
        kinds[name](**arguments)
    assert says in str(error.value).replace("= 99;", "= 99.0;")
    assert "\n" not in str(error.value)


def test_command_refuses_bad_settings_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fit("refused", *with_callbacks(rule(-1.0)))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("lnsgd: error: ") and "loss = -1.0; give a number >= 0" in lines[-1]
    assert not Path("refused").exists()


# --- the Trainer


@pytest.fixture
def float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trainer_of(folder: Path, *callbacks: pl.Callback, devices: int = 1, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        logger=CSVLogger(str(folder)),
        default_root_dir=folder,
        callbacks=[*callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 6, **options},
    )


def digits(lr: float = 0.05) -> tuple[Classifier, MNIST]:
    with rng.forked(3, "init"):
        net = MLP([784, 12, 10])
    module = Classifier(net, LogisticLoss(), None, partial(torch.optim.SGD, lr=lr, momentum=0.9))
    return module, MNIST(source="sample", subset=97, val_size=121, batch_size=30, eval_batch_size=60, seed=5)


@pytest.mark.usefixtures("float64")
def test_two_processes_stop_at_the_same_step_as_one(tmp_path: Path) -> None:
    """The shares differ in size: the last batch has 7 examples."""
    found = {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        module, data = digits()
        rules = StopAtMargin(0.5, 0.3, every_n_steps=2), StopAtLoss(0.0), StopAtZeroError(2)
        trainer_of(folder, *rules, Margin(0.5, every_n_steps=5), devices=devices).fit(module, datamodule=data)
        rows = pq.read_table(folder / "measures.parquet").to_pylist()
        found[devices] = {(row["step"], row["measure"], row["split"]): row["value"] for row in rows}
    last = max(step for step, *_ in found[1])
    assert 2 < last < 24 and last % 2 == 0
    fractions = {step: value for (step, measure, _), value in found[1].items() if measure == "stopping_margin_fraction"}
    assert [step for step, value in fractions.items() if value >= 0.3] == [last]
    assert found[2].keys() == found[1].keys()
    assert {measure for _, measure, _ in found[1]} >= {"margin_fraction", "margin_median", "stopping_error"}
    for key, value in found[1].items():
        assert found[2][key] == pytest.approx(value, rel=1e-9, abs=1e-11), key


class MarginsByHand(pl.Callback):
    """A callback that computes margins on whole splits at every step."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], list[float]] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_batch_end(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        for split in ("train", "val"):
            data = trainer.datamodule.splits[split]
            with torch.no_grad():
                outputs = module(trainer.datamodule.transform(data.inputs).double()).tolist()
            margins = [own.pop(label) - max(own) for own, label in zip(outputs, data.labels.tolist())]
            self.found[trainer.global_step, split] = sorted(margins)


@pytest.mark.usefixtures("float64")
def test_margins_are_logged(tmp_path: Path) -> None:
    by_hand = MarginsByHand()
    module, data = digits()
    trainer_of(tmp_path / "run", by_hand, Margin(0.5, every_n_steps=3), max_epochs=2).fit(module, datamodule=data)
    rows = pq.read_table(tmp_path / "run" / "measures.parquet").to_pylist()
    assert {row["step"] for row in rows} == {0, 3, 6, 8}
    assert len(rows) == 4 * 2 * 2
    for row in rows:
        margins = by_hand.found[row["step"], row["split"]]
        if row["measure"] == "margin_fraction":
            assert row["value"] == sum(margin >= 0.5 for margin in margins) / len(margins)
        else:
            assert row["value"] == pytest.approx(margins[len(margins) // 2], rel=1e-12)


def test_rule_on_a_subset(tmp_path: Path) -> None:
    module, data = digits()
    trainer_of(tmp_path / "run", StopAtZeroError(examples=4), max_epochs=1).fit(module, datamodule=data)
    rows = pq.read_table(tmp_path / "run" / "measures.parquet").to_pylist()
    assert [4 * row["value"] % 1 for row in rows] == [0, 0]


@pytest.mark.parametrize("kind", [lambda: StopAtLoss(1e30), StopAtMargin, StopAtZeroError])
def test_network_of_nan_satisfies_no_rule(tmp_path: Path, kind: Callable[[], StoppingRule]) -> None:
    """All labels are the class that argmax gives for NaN."""
    module = Classifier(MLP([4, 5, 3]), LogisticLoss())
    with torch.no_grad():
        module.net.layers[0].bias.fill_(torch.nan)
    callback = kind()
    data = InMemory((torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)), batch_size=2, num_classes=3)
    trainer_of(tmp_path / "run", callback, max_epochs=2).fit(module, datamodule=data)
    assert callback.stopped_at is None and module.trainer.global_step == 6
    assert all(math.isnan(row["value"]) for row in pq.read_table(tmp_path / "run" / "measures.parquet").to_pylist())


@pytest.mark.parametrize(
    ("kind", "says"),
    [(StopAtMargin, "margins need class labels"), (StopAtZeroError, "StopAtZeroError needs class labels")],
)
def test_rules_for_classes_refuse_real_targets(tmp_path: Path, kind: Callable[[], StoppingRule], says: str) -> None:
    data = InMemory((torch.randn(6, 4), torch.randn(6, 3)), batch_size=2)
    with pytest.raises(ValueError, match=says):
        trainer_of(tmp_path, kind()).fit(Regressor(MLP([4, 5, 3])), datamodule=data)


def test_min_epochs_comes_before_any_rule(tmp_path: Path) -> None:
    """An epoch has four steps."""
    for options, stop in (({}, 0), ({"min_epochs": 2}, 9), ({"min_steps": 5}, 6)):
        callback = StopAtLoss(1e30, every_n_steps=3)
        module, data = digits()
        trainer = trainer_of(tmp_path / str(stop), callback, **options)
        trainer.fit(module, datamodule=data)
        assert callback.stopped_at == trainer.global_step == stop


def test_rule_is_reused_in_another_trainer(tmp_path: Path) -> None:
    callback = StopAtLoss(1e30, every_n_steps=3)
    for name in ("first", "second"):
        module, data = digits()
        trainer_of(tmp_path / name, callback, min_epochs=1).fit(module, datamodule=data)
        assert callback.stopped_at == module.trainer.global_step == 6
