"""`lnsgd.analysis.analyze`: gives the numbers that callbacks logged, for runs and other networks, and resumes."""

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

from lnsgd.analysis import analyze
from lnsgd.callbacks import ActiveNeurons, DeadNeurons
from lnsgd.data import InMemory
from lnsgd.measuring import (
    ActivationMeasurer,
    ActiveNeuronsMeasurer,
    DeadNeuronsMeasurer,
    DistanceFromInitMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
    Measurement,
    Measurer,
    PerformanceMeasurer,
    SpectralDensityMeasurer,
    TopEigenvaluesMeasurer,
    WeightNormsMeasurer,
)
from lnsgd.records.journal import journal_in
from tests.analysis.analyzed_runs import point_data, points, small_net, weights

KEYS = ["step", "epoch", "replica", "split", "measure", "layer"]

LOGGED = [
    ActiveNeuronsMeasurer,
    DistanceFromInitMeasurer,
    PerformanceMeasurer,
    WeightNormsMeasurer,
    HessianTraceMeasurer,
    ImplicitRegularizerMeasurer,
]


class ForeignData(LightningDataModule):
    """Data of another project: a DataLoader without a validation split."""

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
    """Return the rows that both tables have, side by side."""
    return table.merge(logged, on=KEYS, suffixes=("", "_logged"))


def test_trajectory_equals_what_callbacks_logged(run: Path) -> None:
    measures = [kind() for kind in LOGGED] + [TopEigenvaluesMeasurer(count=2)]
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


def test_every_replica_equals_what_was_logged(replicated: Path) -> None:
    table = analyze(
        [replicated],
        measures=[ActiveNeuronsMeasurer(), DistanceFromInitMeasurer(), PerformanceMeasurer(), HessianTraceMeasurer()],
    )
    both = compared(table, pd.read_parquet(replicated / "measures.parquet"))
    assert set(both.replica) == {0, 1, 2}
    assert set(both.step) == {0, 10}
    assert len(both) == len(table)
    np.testing.assert_allclose(both.value, both.value_logged, rtol=1e-6, atol=1e-12)


def test_checkpoint_finds_model_and_initial_weights_of_its_run(run: Path) -> None:
    table = analyze([run / "checkpoints" / "last.ckpt"], measures=[DistanceFromInitMeasurer(per_tensor=False)])
    logged = pd.read_parquet(run / "measures.parquet")
    expected = logged[(logged.measure == "distance_from_init") & (logged.step == 30) & (logged.layer == "")]
    assert table.value.tolist() == pytest.approx(expected.value.tolist(), rel=1e-6)
    assert table.step.tolist() == [30]


def test_state_dict_of_a_given_model_is_measured(file: Path) -> None:
    table = analyze([file], data=point_data(), model=small_net(), measures=[ActiveNeuronsMeasurer(splits=["val"])])
    own = small_net()
    own.load_state_dict(weights(0))
    firing = own[0](points(20, 1)[0]) > 0
    fraction = table[(table.measure == "active_fraction") & (table.layer != "total")]
    assert fraction.value.tolist() == pytest.approx([firing.double().mean().item()])
    assert fraction.layer.tolist() == ["net.1"]
    assert table.step.isna().all()


def test_data_without_validation_split(file: Path) -> None:
    table = analyze([file], data=ForeignData(), model=small_net(), loss=nn.CrossEntropyLoss(reduction="none"))
    own = small_net()
    own.load_state_dict(weights(0))
    inputs, labels = points()
    expected = nn.functional.cross_entropy(own(inputs), labels).item()
    assert table[table.measure == "loss"].value.tolist() == pytest.approx([expected], rel=1e-6)
    assert "val" not in set(table.split)
    assert {"active_fraction", "associated_count", "hessian_trace", "norm"} <= set(table.measure)


def test_impossible_measures_are_left_out_or_refused(file: Path) -> None:
    linear = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 2))
    table = analyze([file], data=point_data(), model=linear)
    assert {"norm", "implicit_regularizer"} == set(table.measure) - {"bias_mean", "bias_max"}
    with pytest.raises(ValueError, match=r"ActiveNeurons cannot be taken of weights: .* calls no activation"):
        analyze([file], data=point_data(), model=linear, measures=[ActiveNeuronsMeasurer()])
    with pytest.raises(ValueError, match=r"HessianTrace cannot be taken .* loss"):
        analyze([file], data=point_data(), model=linear, measures=[HessianTraceMeasurer()])
    with pytest.raises(ValueError, match=r"DistanceFromInit cannot be taken .* --init"):
        analyze([file], data=point_data(), model=linear, measures=[DistanceFromInitMeasurer()])


def test_initial_weights_can_be_given(file: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights(1).items()}}, tmp_path / "init.pth")
    options = {"data": point_data(), "model": small_net(), "init": tmp_path / "init.pth"}
    table = analyze([file], measures=[DistanceFromInitMeasurer(per_tensor=False)], **options)
    squares = [(weights(0)[name].double() - weights(1)[name]).square().sum() for name in weights(0)]
    assert table.value.tolist() == pytest.approx([sum(squares).item() ** 0.5], rel=1e-12)


def test_spectrum_contains_the_largest_eigenvalue(file: Path, tmp_path: Path) -> None:
    spectrum = SpectralDensityMeasurer(probes=2, steps=40, top=0, loss=nn.CrossEntropyLoss(reduction="none"))
    options = {"data": point_data(), "model": small_net(), "out": tmp_path / "out"}
    table = analyze([file], measures=[spectrum], **options).set_index("measure")
    largest = analyze([file], measures=[TopEigenvaluesMeasurer(loss=spectrum.loss, rtol=1e-8)], **options)
    assert table.value["spectrum_largest"] == pytest.approx(largest.value[0], rel=1e-5)
    assert table.stderr["spectrum_trace"] > 0
    (kept,) = (tmp_path / "out" / "spectra").iterdir()
    kept.unlink()  # the numbers alone do not suffice to draw it
    analyze([file], measures=[spectrum], **options)
    assert kept.exists()


class MeasurementCounter:
    """Counts the measurements that are taken; may stop the process before one."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.stop_after = None
        for kind in (ActivationMeasurer, PerformanceMeasurer, WeightNormsMeasurer, DistanceFromInitMeasurer):
            monkeypatch.setattr(kind, "measure", self.counted(kind.measure))

    def counted(self, measure):
        def counted_measure(measurer, subject, source, context):
            if self.count == self.stop_after:
                raise KeyboardInterrupt
            self.count += 1
            return measure(measurer, subject, source, context)

        return counted_measure


def test_data_of_another_project_is_set_up_once(file):
    """A second set-up might split the data in another way."""
    calls = []

    class CountedData(ForeignData):
        def setup(self, stage):
            calls.append(stage)
            super().setup(stage)

    data = CountedData()
    for _ in range(2):
        analyze([file], data=data, model=small_net(), measures=[WeightNormsMeasurer()])
    assert calls == ["fit", "test"]


def test_stopped_analysis_measures_only_what_is_missing(run: Path, tmp_path: Path, monkeypatch) -> None:
    counter = MeasurementCounter(monkeypatch)
    measures = [PerformanceMeasurer(examples=100), WeightNormsMeasurer()]
    whole = analyze([run], measures=measures)
    assert counter.count == 8
    counter.count, counter.stop_after = 0, 3
    with pytest.raises(KeyboardInterrupt):
        analyze([run], measures=measures, out=tmp_path)
    with (tmp_path / "measured.jsonl").open("ab") as journal:
        journal.write(b'{"key": "ab')  # as if killed while writing
    counter.count, counter.stop_after = 0, None
    pd.testing.assert_frame_equal(analyze([run], measures=measures, out=tmp_path), whole)
    assert counter.count == 5
    lines = (tmp_path / "measured.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 8


def test_any_change_of_settings_data_or_weights_is_measured_again(file: Path, tmp_path: Path, monkeypatch):
    counter = MeasurementCounter(monkeypatch)
    other = tmp_path / "other.pt"
    torch.save(weights(1), other)
    options = {"model": small_net(), "out": tmp_path / "out"}
    loss = nn.CrossEntropyLoss(reduction="none")
    smoothed = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)

    def measured(path, data, measure, **more):
        counter.count = 0
        analyze([path], data=data, measures=[measure], **options, **more)
        return counter.count

    assert measured(file, point_data(), PerformanceMeasurer(), loss=loss) == 1
    assert measured(file, point_data(), PerformanceMeasurer(), loss=loss) == 0
    assert measured(shutil.copy(file, tmp_path / "copy.pt"), point_data(), PerformanceMeasurer(), loss=loss) == 0
    assert measured(file, point_data(), PerformanceMeasurer(), loss=smoothed) == 1
    assert measured(file, point_data(), PerformanceMeasurer(examples=10), loss=loss) == 1
    assert measured(file, InMemory(points(40, 7), points(20, 1)), PerformanceMeasurer(), loss=loss) == 1
    assert measured(other, point_data(), PerformanceMeasurer(), loss=loss) == 1
    assert measured(file, point_data(), DistanceFromInitMeasurer(), init=other) == 1
    assert measured(file, point_data(), DistanceFromInitMeasurer(), init=file) == 1
    assert measured(file, point_data(), DistanceFromInitMeasurer(), init=other) == 0


def test_callback_and_its_measurer_are_one_measure(file: Path, tmp_path: Path, monkeypatch) -> None:
    options = {"data": point_data(), "model": small_net(), "out": tmp_path / "out"}
    counter = MeasurementCounter(monkeypatch)
    by_callback = analyze([file], measures=[ActiveNeurons(every_n_epochs=2), DeadNeurons()], **options)
    assert counter.count == 2
    by_measurer = analyze([file], measures=[ActiveNeuronsMeasurer(), DeadNeuronsMeasurer()], **options)
    assert counter.count == 2
    pd.testing.assert_frame_equal(by_callback, by_measurer)


def test_two_analyses_cannot_write_to_one_folder(file: Path, tmp_path: Path) -> None:
    with journal_in(tmp_path), pytest.raises(ValueError, match="another analysis writes there"):
        analyze([file], data=point_data(), model=small_net(), measures=[WeightNormsMeasurer()], out=tmp_path)


class Projection(Measurer):
    """A measurer whose setting is a vector, which would be missing from the key of its measurements."""

    headline = ("projection", "projection")

    def __init__(self, direction):
        super().__init__()
        self.direction = direction

    def measure(self, subject, source, context):
        (weight,) = [p for p in subject.module.parameters() if p.ndim == 2][:1]
        return [Measurement("projection", "", "", (weight.flatten()[0] * self.direction[0]).item())]


def test_settings_that_cannot_identify_a_measurement_are_refused(file):
    with pytest.raises(ValueError, match="Projection: the setting direction is a Tensor"):
        analyze([file], data=point_data(), model=small_net(), measures=[Projection(torch.ones(1))])
    assert (
        analyze([file], data=point_data(), model=small_net(), measures=[Projection([1.0])]).measure[0] == "projection"
    )


def test_measurers_of_one_name_in_different_modules_are_told_apart(file, tmp_path):
    """Both are called Projection; the second must not find the numbers of the first."""
    other = type("Projection", (Projection,), {"__module__": "tests.analysis.other"})
    first, second = (
        analyze([file], data=point_data(), model=small_net(), measures=[measure], out=tmp_path / "out")
        for measure in (Projection([1.0]), _negated(other)([1.0]))
    )
    assert second.value.tolist() == (-first.value).tolist()


def _negated(kind):
    def measure(self, subject, source, context):
        return [row._replace(value=-row.value) for row in Projection.measure(self, subject, source, context)]

    kind.measure = measure
    return kind
