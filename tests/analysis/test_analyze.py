"""`lnsgd.analysis.analyze`: the numbers that callbacks logged, resumed, of runs and of foreign networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd.analysis import analyze, measuring
from lnsgd.callbacks import (
    ActiveNeurons,
    DistanceFromInit,
    HessianTrace,
    ImplicitRegularizer,
    Performance,
    SpectralDensity,
    TopEigenvalues,
    WeightNorms,
)
from lnsgd.data import InMemory
from tests.analysis.analyzed_runs import weights

KEYS = ["step", "epoch", "replica", "split", "measure", "layer"]

LOGGED = [ActiveNeurons, DistanceFromInit, Performance, WeightNorms, HessianTrace, ImplicitRegularizer]


def net(width=5):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))


def points(n=40, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 3, generator=drawn)
    return inputs, (inputs[:, 0] > 0).long()


def in_memory():
    return InMemory(points(), points(20, 1), eval_batch_size=16)


class Foreign(LightningDataModule):
    """Anyone's: a DataLoader, no validation."""

    def setup(self, stage):
        self.train = TensorDataset(*points())

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=7, shuffle=True)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(weights(0), path)
    return path


def compared(table, logged):
    """Rows that both have, side by side."""
    return table.merge(logged, on=KEYS, suffixes=("", "_logged"))


def test_a_trajectory_gives_what_the_callbacks_logged(run: Path) -> None:
    measures = [kind() for kind in LOGGED] + [TopEigenvalues(count=2)]
    table = analyze([run], measures=measures)
    logged = pd.read_parquet(run / "measures.parquet")
    both = compared(table, logged)
    assert sorted(table.step.unique()) == [0, 10, 20, 30]
    # Measured at the end of epochs only, and before the first step; epochs are counted from there.
    assert set(both.step) == {0, 10, 20, 30}
    assert len(both) == len(table)
    np.testing.assert_allclose(both.value, both.value_logged, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(both.stderr, both.stderr_logged, rtol=1e-6, atol=1e-12)
    traces = table[(table.measure == "hessian_trace") & (table.layer == "")]
    assert (traces[traces.step > 0].stderr > 0).all()  # at θ₀ it happens to be exact


def test_every_replica_gives_what_was_logged_of_it(replicated: Path) -> None:
    table = analyze([replicated], measures=[ActiveNeurons(), DistanceFromInit(), Performance(), HessianTrace()])
    both = compared(table, pd.read_parquet(replicated / "measures.parquet"))
    assert set(both.replica) == {0, 1, 2}
    assert set(both.step) == {0, 10}
    assert len(both) == len(table)
    np.testing.assert_allclose(both.value, both.value_logged, rtol=1e-6, atol=1e-12)


def test_one_checkpoint_of_a_run_knows_its_model_and_its_initial_weights(run: Path) -> None:
    table = analyze([run / "checkpoints" / "last.ckpt"], measures=[DistanceFromInit(per_tensor=False)])
    logged = pd.read_parquet(run / "measures.parquet")
    expected = logged[(logged.measure == "distance_from_init") & (logged.step == 30) & (logged.layer == "")]
    assert table.value.tolist() == pytest.approx(expected.value.tolist(), rel=1e-6)
    assert table.step.tolist() == [30]


def test_the_network_of_a_state_dict_is_measured_as_it_is(file: Path) -> None:
    table = analyze([file], data=in_memory(), model=net(), measures=[ActiveNeurons(splits=["val"])])
    own = net()
    own.load_state_dict(weights(0))
    firing = own[0](points(20, 1)[0]) > 0
    fraction = table[table.measure == "active_fraction"]
    assert fraction.value.tolist() == pytest.approx([firing.double().mean().item()])
    assert fraction.layer.tolist() == ["net.1"]
    assert table.step.isna().all()


def test_data_of_ones_own_without_validation(file: Path) -> None:
    table = analyze([file], data=Foreign(), model=net(), loss=nn.CrossEntropyLoss(reduction="none"))
    own = net()
    own.load_state_dict(weights(0))
    inputs, labels = points()
    expected = nn.functional.cross_entropy(own(inputs), labels).item()
    assert table[table.measure == "loss"].value.tolist() == pytest.approx([expected], rel=1e-6)
    assert "val" not in set(table.split)
    assert {"active_fraction", "associated_count", "hessian_trace", "norm"} <= set(table.measure)


def test_what_cannot_be_taken_is_left_out_unless_it_is_asked_for(file: Path) -> None:
    linear = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 2))
    table = analyze([file], data=in_memory(), model=linear)
    assert {"norm", "implicit_regularizer"} == set(table.measure) - {"bias_mean", "bias_max"}
    with pytest.raises(ValueError, match="ActiveNeurons cannot be taken of weights: no activation module"):
        analyze([file], data=in_memory(), model=linear, measures=[ActiveNeurons()])
    with pytest.raises(ValueError, match=r"HessianTrace cannot be taken .* loss"):
        analyze([file], data=in_memory(), model=linear, measures=[HessianTrace()])
    with pytest.raises(ValueError, match=r"DistanceFromInit cannot be taken .* --init"):
        analyze([file], data=in_memory(), model=linear, measures=[DistanceFromInit()])


def test_initial_weights_may_be_given(file: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights(1).items()}}, tmp_path / "init.pth")
    options = {"data": in_memory(), "model": net(), "init": tmp_path / "init.pth"}
    table = analyze([file], measures=[DistanceFromInit(per_tensor=False)], **options)
    squares = [(weights(0)[name].double() - weights(1)[name]).square().sum() for name in weights(0)]
    assert table.value.tolist() == pytest.approx([sum(squares).item() ** 0.5], rel=1e-12)


def test_a_spectrum_gives_the_extreme_eigenvalues(file: Path, tmp_path: Path) -> None:
    spectrum = SpectralDensity(probes=2, steps=40, top=0, loss=nn.CrossEntropyLoss(reduction="none"))
    options = {"data": in_memory(), "model": net(), "out": tmp_path / "out"}
    table = analyze([file], measures=[spectrum], **options).set_index("measure")
    largest = analyze([file], measures=[TopEigenvalues(loss=spectrum.loss, rtol=1e-8)], **options)
    assert table.value["spectrum_largest"] == pytest.approx(largest.value[0], rel=1e-5)
    assert table.stderr["spectrum_trace"] > 0
    (kept,) = (tmp_path / "out" / "spectra").iterdir()
    kept.unlink()  # numbers alone are not enough to draw it
    analyze([file], measures=[spectrum], **options)
    assert kept.exists()


class Counted:
    """Counts what is really measured."""

    def __init__(self, monkeypatch):
        self.names = []
        self.die_after = None
        monkeypatch.setattr("lnsgd.analysis.resuming.take", self.take)

    def take(self, measure, trainer, subject):
        if self.die_after is not None and len(self.names) == self.die_after:
            raise KeyboardInterrupt
        self.names.append(type(measure).__name__)
        return measuring.take(measure, trainer, subject)


def test_a_stopped_analysis_goes_on_where_it_was(run: Path, tmp_path: Path, monkeypatch) -> None:
    counted = Counted(monkeypatch)
    measures = [Performance(examples=100), WeightNorms()]
    whole = analyze([run], measures=measures)
    assert len(counted.names) == 8
    counted.names, counted.die_after = [], 3
    with pytest.raises(KeyboardInterrupt):
        analyze([run], measures=measures, out=tmp_path)
    with (tmp_path / "measured.jsonl").open("ab") as journal:
        journal.write(b'{"key": "ab')  # killed while it wrote
    counted.names, counted.die_after = [], None
    pd.testing.assert_frame_equal(analyze([run], measures=measures, out=tmp_path), whole)
    assert len(counted.names) == 5
    lines = (tmp_path / "measured.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 8


def test_other_settings_data_weights_or_initial_weights_are_measured_anew(file: Path, tmp_path: Path, monkeypatch):
    counted = Counted(monkeypatch)
    other = tmp_path / "other.pt"
    torch.save(weights(1), other)
    options = {"model": net(), "out": tmp_path / "out"}
    loss = nn.CrossEntropyLoss(reduction="none")
    smoothed = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)

    def measured(path, data, measure, **more):
        counted.names.clear()
        analyze([path], data=data, measures=[measure], **options, **more)
        return len(counted.names)

    assert measured(file, in_memory(), Performance(), loss=loss) == 1
    assert measured(file, in_memory(), Performance(), loss=loss) == 0
    assert measured(shutil.copy(file, tmp_path / "copy.pt"), in_memory(), Performance(), loss=loss) == 0
    assert measured(file, in_memory(), Performance(), loss=smoothed) == 1
    assert measured(file, in_memory(), Performance(examples=10), loss=loss) == 1
    assert measured(file, InMemory(points(40, 7), points(20, 1)), Performance(), loss=loss) == 1
    assert measured(other, in_memory(), Performance(), loss=loss) == 1
    assert measured(file, in_memory(), DistanceFromInit(), init=other) == 1
    assert measured(file, in_memory(), DistanceFromInit(), init=file) == 1
    assert measured(file, in_memory(), DistanceFromInit(), init=other) == 0


def test_two_analyses_do_not_write_to_one_folder(file: Path, tmp_path: Path) -> None:
    from lnsgd.analysis.journal import journal_in

    with journal_in(tmp_path), pytest.raises(ValueError, match="another analysis writes there"):
        analyze([file], data=in_memory(), model=net(), measures=[WeightNorms()], out=tmp_path)
