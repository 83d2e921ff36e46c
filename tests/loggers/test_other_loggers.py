"""What the loggers of either Lightning get: numbers, histograms and pictures, at the number of optimizer steps."""

import importlib
import sqlite3
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from lnsgd.callbacks import (
    ActiveNeurons,
    ClassAssociation,
    DistanceFromInit,
    GradientNorm,
    HessianTrace,
    Performance,
    WeightNorms,
)
from lnsgd.lightning import Logger
from lnsgd.loggers import mlflow_name, usual_name
from lnsgd.measuring import Measurement, leaf_names, scalars
from tests.callbacks.foreign_project import CLASSES, INPUTS, PACKAGES, loader, package, project

STEPS = 5


@pytest.fixture(params=PACKAGES)
def lightning(request):
    package.use(request.param)
    yield package
    package.use(PACKAGES[0])


def logger_class(name):
    return getattr(importlib.import_module(f"{package.name}.loggers"), name)


class Reused(nn.Module):
    """A network whose one ReLU is called twice, so that its sites have the names ``net.relu#1`` and ``net.relu#2``."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(INPUTS, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def measuring():
    exact = {"max_overhead": None}
    return [
        ActiveNeurons(),
        ClassAssociation(histograms=1),
        DistanceFromInit(),
        GradientNorm(**exact),
        HessianTrace(**exact, method="hutchinson", max_probes=16),
        Performance(),
        WeightNorms(),
    ]


def train(folder, *loggers):
    trainer = package.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=measuring(),
        logger=list(loggers),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    module = project(net=Reused())
    trainer.fit(module, loader(), loader(13, seed=2))
    return trainer


class Unknown(Logger):
    """A logger of a library that lnsgd does not know, whose method for pictures has other arguments."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        assert all(isinstance(value, float | int | torch.Tensor) for value in metrics.values())
        self.rows.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *args, **kwargs):
        """Do nothing."""

    def log_image(self, picture, caption):
        raise AssertionError


def is_path_in(name, other):
    return other.startswith(f"{name}/") or name.startswith(f"{other}/")


def no_name_begins_another(names):
    return not [pair for pair in combinations(sorted(names), 2) if is_path_in(*pair)]


def test_tensorboard_gets_scalars_histograms_and_pictures(tmp_path, lightning):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    unknown = Unknown()
    tensorboard = logger_class("TensorBoardLogger")(tmp_path, name=None)
    train(tmp_path, tensorboard, unknown)
    events = EventAccumulator(tensorboard.log_dir, {"histograms": 0, "images": 0, "scalars": 0}).Reload()
    name = "distance_from_init/net.first.weight"
    found = {event.step: event.value for event in events.Scalars(name)}
    assert found == {step: pytest.approx(unknown.rows[step][name], rel=1e-6) for step in (0, STEPS)}
    histograms = events.Histograms("firing_rate/train/net.relu#1")
    assert [h.step for h in histograms] == [0, STEPS]
    last, share = histograms[-1].histogram_value, unknown.rows[STEPS]["active_fraction/train/net.relu#1"]
    assert last.num == sum(last.bucket) == 8 and last.sum / 8 == pytest.approx(share)
    pictures = events.Tags()["images"]
    assert pictures and all(
        events.Images(tag)[-1].step == STEPS and events.Images(tag)[-1].width > 100 for tag in pictures
    )


def test_unknown_loggers_get_numbers_alone_at_optimizer_steps(tmp_path, lightning):
    loggers = Unknown(), Unknown()
    trainer = train(tmp_path, *loggers)
    assert loggers[0].rows == loggers[1].rows and max(loggers[0].rows) == trainer.global_step == STEPS
    assert {"distance_from_init", "hessian_trace/train/stderr", "epoch"} <= set(loggers[0].rows[STEPS])


@pytest.mark.parametrize("store", ["file", pytest.param("sqlite", marks=pytest.mark.slow)])  # makes 70 tables
def test_mlflow_takes_all_names_and_none_begins_another(tmp_path, monkeypatch, lightning, store):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = f"file:{tmp_path / 'mlflow'}" if store == "file" else f"sqlite:///{tmp_path / 'mlflow.db'}"
    unknown, mlflow = Unknown(), logger_class("MLFlowLogger")(tracking_uri=place)
    train(tmp_path, mlflow, unknown)
    names = set(mlflow.experiment.get_run(mlflow.run_id).data.metrics)
    assert {"distance_from_init/total", "distance_from_init/net.first.weight"} <= names
    assert {"hessian_trace/train/total", "hessian_trace_stderr/train/total"} <= names
    assert {"active_fraction/val/net.relu-23-1", "active_fraction/val/net.relu-23-2"} <= names
    assert no_name_begins_another(names)
    usual = set().union(*unknown.rows.values())
    assert len(names) == len(usual) and {"active_fraction/val/net.relu#1"} <= usual & set(map(usual_name, names))
    history = mlflow.experiment.get_metric_history(mlflow.run_id, "distance_from_init/total")
    assert {m.step: m.value for m in history} == {
        step: row["distance_from_init"] for step, row in unknown.rows.items() if "distance_from_init" in row
    }
    if store == "sqlite":
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            assert {key for (key,) in database.execute("select distinct key from metrics")} == names


def test_wandb_of_lightning_gets_histograms_and_pictures(tmp_path, lightning):
    class Run:
        """What Lightning uses of a run of W&B."""

        def __init__(self):
            self.rows = []

        def log(self, values):
            self.rows.append(values)

        def define_metric(self, *args, **kwargs):
            """Do nothing."""

    wandb = pytest.importorskip("wandb")
    run = Run()
    train(tmp_path, logger_class("WandbLogger")(experiment=run, save_dir=str(tmp_path)))
    named = {(name, row["trainer/global_step"]): value for row in run.rows for name, value in row.items()}
    assert sum(named["firing_rate/train/net.relu#1", STEPS].histogram) == 8
    assert isinstance(named["distance_from_init", STEPS], float)
    assert any(isinstance(value, list) and isinstance(value[0], wandb.Image) for value in named.values())


@pytest.mark.parametrize("name", ["a#1", "a-b", "-23-", "-23#", "é/ü 1:2", "lr=1e-05,p=0.1/mean", "plain/name.0"])
def test_names_in_mlflow_are_reversible(name):
    from mlflow.utils.validation import _validate_metric_name

    encoded = mlflow_name(name)
    _validate_metric_name(encoded)
    assert encoded.isascii() and usual_name(encoded) == name
    assert encoded == mlflow_name(encoded).replace("-2d-", "-")


def test_leaf_names_are_as_many_as_the_usual_names():
    measured = [
        Measurement(measure, split, layer, 1.0, stderr)
        for measure in ("a", "b")
        for split in ("", "train")
        for layer in ("", "c", "c.d")
        for stderr in (np.nan, 0.1)
    ]
    for stderr in (True, False):
        some = [m for m in measured if np.isnan(m.stderr) != stderr]
        leaves = [leaf_names(some)[name] for name in scalars(some)]
        assert len(set(leaves)) == len(leaves) == len(scalars(some))
        by_split = [[m for m in some if bool(m.split) == has] for has in (True, False)]
        assert all(no_name_begins_another([leaf_names(part)[name] for name in scalars(part)]) for part in by_split)
