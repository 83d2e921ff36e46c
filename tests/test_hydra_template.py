"""A project in the shape of the lightning-hydra-template is measured when callbacks are added to its config alone."""

from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.callbacks.foreign_project import rows
from tests.hydra_template.src.train import train

PROJECT = Path(__file__).parent / "hydra_template"
MEASURES = {
    "active_count",
    "active_fraction",
    "associated_count",
    "associated_fraction",
    "distance_from_init",
    "hessian_trace",
}


def run(folder, *overrides):
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        trainer = train(compose("train.yaml", [f"output_dir={folder}", *overrides]))
    (csv,) = folder.rglob("metrics.csv")
    return trainer, pd.read_csv(csv)


def test_callbacks_in_the_config_measure_and_change_nothing(tmp_path):
    _, plain = run(tmp_path / "plain")
    trainer, measured = run(tmp_path / "measured", "callbacks=with_lnsgd")
    own = ["train/loss", "val/loss", "val/acc", "val/acc_best"]
    rows_with_own = [frame[own].dropna(how="all").reset_index(drop=True) for frame in (measured, plain)]
    assert rows_with_own[0].equals(rows_with_own[1]) and len(rows_with_own[0]) == 4
    assert trainer.global_step == 12
    (table,) = (tmp_path / "measured").rglob("measures.parquet")
    found = rows(table.parent)
    assert {measure for _, measure, _, _ in found} == MEASURES and {step for step, *_ in found} == {0, 6, 12}
    sites = {layer for _, measure, split, layer in found if measure == "active_fraction" and split == "val"}
    assert {"net.model.2", "net.model.5"} <= sites
    (events,) = (tmp_path / "measured").rglob("events.out*")
    board = EventAccumulator(str(events)).Reload()
    final = found[12, "active_fraction", "val", "net.model.2"]
    assert board.Scalars("active_fraction/val/net.model.2")[-1].value == pytest.approx(final)
    column = measured["active_fraction/val/net.model.2"].dropna()
    assert column.iloc[-1] == pytest.approx(final)
    assert "firing_rate/val/net.model.2" in board.Tags()["histograms"]
