"""The CIFAR-10 experiment learns, on real images, with all trackers on."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder

CONFIG = Path(__file__).parents[1] / "configs" / "debug" / "cifar10_resnet20.yaml"
VALIDATED = 500
# Smaller than the config's own, so that it takes seconds.
SMALLER = {
    "data.subset": 1500,
    "data.val_size": VALIDATED,
    "data.batch_size": 32,
    "trainer.max_epochs": 3,
    "model.optimizer.lr": 0.05,
    "trainer.enable_progress_bar": "false",
}


@pytest.fixture(scope="module")
def run(full_cifar10, tmp_path_factory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("cifar10") / "run")
    options = [part for name, value in SMALLER.items() for part in (f"--{name}", str(value))]
    main(["fit", "--config", str(CONFIG), "--run_dir", str(folder.path), *options])
    return folder


@pytest.mark.slow
def test_loss_falls_and_accuracy_is_well_above_chance(run):
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    accuracies = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert losses == sorted(losses, reverse=True)
    standard_error = (0.1 * 0.9 / VALIDATED) ** 0.5
    assert accuracies[-1] > 0.1 + 5 * standard_error


def test_every_site_is_watched(run):
    table = pq.read_table(run.measures).to_pandas()
    last = table[table["step"] == table["step"].max()]
    for measure, split in (("active_fraction", "val"), ("associated_fraction", "train")):
        values = last[(last["measure"] == measure) & (last["split"] == split)]
        assert len(values) == 19 + 1  # and the total over the sites
        assert (values["layer"] == "total").sum() == 1
        assert values["value"].between(0, 1).all()
    fractions = last[(last["measure"] == "active_fraction") & (last["split"] == "val")]["value"]
    assert (fractions > 0.01).all()
    assert set(last["measure"]) >= {"distance_from_init", "hessian_trace"}
    trace = last[(last["measure"] == "hessian_trace") & (last["layer"] == "")]
    assert (trace["value"] > 0).all()
    assert (trace["stderr"] >= 0).all()
