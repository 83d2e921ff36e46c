"""Which weights are measured where callbacks average them: the trained ones, and averages under a name of their own."""

import copy
import json

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors import safe_open
from torch import nn

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, StopAtLoss, WeightNorms
from lnsgd.callbacks.base.which_weights import fingerprint, holding
from lnsgd.data import MNIST
from lnsgd.losses import CrossEntropy
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.records.measures import final_table, read_measures, with_weights_in_names
from tests.callbacks.test_what_is_trained import APPROX, BATCHES, Plain, loader, trainer_in
from tests.tolerances import EXACT


def read(folder):
    return read_measures(folder / "measures.parquet")


def values(folder, measure, weights="trained", layer=""):
    found = read(folder)
    rows = found[(found.measure == measure) & (found.layer == layer) & (found.which_weights == weights)]
    assert not rows.step.duplicated().any()
    return rows.set_index("step").value.to_dict()


def distance(module, start):
    return sum((p - q).square().sum() for p, q in zip(module.parameters(), start.parameters())).sqrt().item()


class Recorder(pl.Callback):
    """Computes distances by itself: of the trained weights, and of their averages by an average of its own."""

    def __init__(self, module, decay=0.9):
        self.start, self.average, self.decay = copy.deepcopy(module), copy.deepcopy(module), decay
        self.trained, self.averaged = {0: 0.0}, {0: 0.0}
        self.updates = 0

    def on_train_batch_end(self, trainer, module, *args):
        self.trained.setdefault(trainer.global_step, distance(module, self.start))  # the first one counts
        for mean, p in zip(self.average.parameters(), module.parameters()):
            decay = self.decay if self.updates else 0.0  # the first update takes the weights as they are
            mean.data = decay * mean + (1 - decay) * p.detach()
        self.updates += 1
        self.averaged[trainer.global_step] = distance(self.average, self.start)


class OwnAverages(pl.Callback):
    """Averages of another project: put in for validation, and for good when training ends."""

    def __init__(self, module):
        self.average = copy.deepcopy(module)

    def on_train_batch_end(self, trainer, module, *args):
        for mean, p in zip(self.average.parameters(), module.parameters()):
            mean.data = 0.5 * mean + 0.5 * p.detach()

    def swap(self, module):
        for mean, p in zip(self.average.parameters(), module.parameters()):
            mean.data, p.data = p.data, mean.data

    def on_validation_start(self, trainer, module):
        self.swap(module)

    def on_validation_end(self, trainer, module):
        self.swap(module)

    def on_train_end(self, trainer, module):
        for mean, p in zip(self.average.parameters(), module.parameters()):
            p.data.copy_(mean)


@pytest.mark.parametrize("first", [True, False], ids=["averaging-first", "measuring-first"])
@pytest.mark.parametrize("stopped", [False, True], ids=["to-the-end", "stopped-early"])
def test_trained_weights_are_measured_and_averages_on_request(tmp_path, first, stopped):
    module = Plain()
    recorder = Recorder(module)
    averaging = EMAWeightAveraging(decay=0.9)
    measures = [DistanceFromInit(every_n_epochs=2, averaged=True), WeightNorms(every_n_epochs=2)]
    callbacks = [recorder, *([averaging, *measures] if first else [*measures, averaging])]
    if stopped:

        class Stop(pl.Callback):
            def on_train_epoch_end(self, trainer, module):
                trainer.should_stop = trainer.current_epoch == 2

        callbacks.append(Stop())
    trainer_in(tmp_path, callbacks, max_epochs=5 if stopped else 3).fit(module, loader())
    for weights, expected in (("trained", recorder.trained), ("averaged", recorder.averaged)):
        found = values(tmp_path, "distance_from_init", weights)
        assert list(found) == [0, 2 * BATCHES, 3 * BATCHES]
        assert found == pytest.approx({step: expected[step] for step in found}, **APPROX)
    assert set(read(tmp_path).query("measure == 'norm'").which_weights) == {"trained"}
    assert distance(module, recorder.start) == pytest.approx(recorder.averaged[3 * BATCHES], **APPROX)


def test_measuring_averages_changes_no_bit_of_training(tmp_path):
    nets = []
    for name, callbacks in (
        ("with", [ActiveNeurons(splits=["train"], averaged=True, every_n_steps=1)]),
        ("without", []),
    ):
        torch.manual_seed(0)
        module = Plain(nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3)))
        trainer_in(tmp_path / name, [EMAWeightAveraging(decay=0.8), *callbacks], max_epochs=2).fit(module, loader())
        nets.append(module)
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "averaging",
    [
        lambda module: EMAWeightAveraging(decay=0.5),
        lambda module: EMAWeightAveraging(decay=0.5, update_starting_at_step=10**6),
        lambda module: WeightAveraging(),
        OwnAverages,
    ],
    ids=["ema", "ema-that-starts-late", "mean", "of-another-project"],
)
def test_firings_in_the_validation_pass_are_those_of_the_trained_network(tmp_path, averaging):
    """The validation pass of lnsgd's own data is used to count, but not where other weights are validated."""

    def run(folder, callbacks):
        torch.manual_seed(0)
        data = MNIST(source="sample", subset=100, batch_size=20, val_size=100)
        module = Classifier(MLP([784, 20, 10]), CrossEntropy(), optimizer=lambda p: torch.optim.SGD(p, 0.5))
        callbacks = [*callbacks(module), ActiveNeurons(splits=["val"])]
        trainer = trainer_in(folder, callbacks, max_epochs=2)
        trainer.fit(module, datamodule=data)
        return values(folder, "active_fraction", layer="net.activations.0")

    expected = run(tmp_path / "without", lambda module: [])
    assert len(set(expected.values())) == 3
    assert run(tmp_path / "with", lambda module: [averaging(module)]) == expected


def swa_network(batch_norm):
    layers = [nn.Linear(6, 40), *([nn.BatchNorm1d(40)] if batch_norm else []), nn.ReLU(), nn.Linear(40, 3)]
    return Plain(nn.Sequential(*layers))


@pytest.mark.parametrize("first", [True, False], ids=["averaging-first", "measuring-first"])
@pytest.mark.parametrize("schedule", [{"every_n_epochs": 4}, {"every_n_steps": 4 * BATCHES}], ids=["epochs", "steps"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch-norm"])
def test_averages_that_replace_the_weights_are_measured_last(tmp_path, batch_norm, first, schedule):
    module = swa_network(batch_norm)
    recorder = Recorder(module)
    averaging = StochasticWeightAveraging(0.5, swa_epoch_start=2)
    measures = [DistanceFromInit(**schedule), ClassAssociation(splits=["train"], histograms=0, examples=None)]
    trainer = trainer_in(tmp_path, [recorder, *([averaging, *measures] if first else [*measures, averaging])])
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module, loader())
    step = trainer.global_step  # one more with batch normalization, for the epoch that trains nothing
    trained = values(tmp_path, "distance_from_init")
    expected = {0: 0.0, 4 * BATCHES: recorder.trained[4 * BATCHES], step: recorder.trained[5 * BATCHES]}
    assert trained == pytest.approx(expected, **APPROX)
    averaged = values(tmp_path, "distance_from_init", "averaged")
    assert averaged == pytest.approx({step: distance(module, recorder.start)}, **APPROX)
    assert abs(averaged[step] - trained[step]) > 1e-3
    assert read(tmp_path).which_weights.iloc[-1] == "averaged"
    with safe_open(tmp_path / "firings.safetensors", "pt") as file:
        assert file.metadata()["which_weights"] == "averaged"
        (layer,) = file.keys()
        found = file.get_tensor(layer)
    inputs, labels = loader().dataset.tensors
    site = int(layer.rpartition(".")[2])
    fires = module.eval().net[:site](inputs) > 0
    expected = torch.stack([fires[labels == c].sum(0) for c in range(3)])
    torch.testing.assert_close(found, expected, check_dtype=False)


def test_the_epoch_of_batch_normalization_of_averages_is_not_measured_as_trained(tmp_path):
    module = swa_network(batch_norm=True)
    recorder = Recorder(module)
    averaging = StochasticWeightAveraging(0.5, swa_epoch_start=2)
    trainer = trainer_in(tmp_path, [recorder, averaging, DistanceFromInit(every_n_steps=1)])
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader())
    found = values(tmp_path, "distance_from_init")
    recorder.trained[4 * BATCHES + 1] = recorder.trained[4 * BATCHES]
    assert found == pytest.approx(recorder.trained, **APPROX)


def test_files_of_a_run_with_averages_beside_are_of_the_trained_weights(tmp_path):
    module = Plain()
    kept = {}

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            kept.update(copy.deepcopy(module.state_dict()))

    callbacks = [Keep(), EMAWeightAveraging(decay=0.9), ClassAssociation(splits=["train"], histograms=0, examples=None)]
    trainer_in(tmp_path, callbacks, max_epochs=3).fit(module, loader())
    with safe_open(tmp_path / "firings.safetensors", "pt") as file:
        assert file.metadata()["which_weights"] == "trained"
        found = file.get_tensor("net.1")
    inputs, labels = loader().dataset.tensors
    fires = inputs @ kept["net.0.weight"].T + kept["net.0.bias"] > 0
    expected = torch.stack([fires[labels == c].sum(0) for c in range(3)])
    torch.testing.assert_close(found, expected, check_dtype=False)
    averaged = module.net[:1](inputs) > 0
    assert not torch.equal(averaged.sum(0), fires.sum(0))  # the module holds the averages


def test_weights_that_another_callback_puts_in_at_the_end_are_named(tmp_path):
    module = Plain()
    start = copy.deepcopy(module)
    callbacks = [OwnAverages(module), DistanceFromInit(), ClassAssociation(splits=["train"], histograms=0)]
    trainer_in(tmp_path, callbacks).fit(module, loader())
    assert values(tmp_path, "distance_from_init", "replaced") == pytest.approx(
        {BATCHES: distance(module, start)}, **APPROX
    )
    with safe_open(tmp_path / "firings.safetensors", "pt") as file:
        assert file.metadata()["which_weights"] == "replaced"


def test_a_run_without_averages_says_trained_throughout(tmp_path):
    trainer_in(tmp_path, [DistanceFromInit(), ClassAssociation(splits=["train"], histograms=0)]).fit(Plain(), loader())
    assert set(read(tmp_path).which_weights) == {"trained"}
    with safe_open(tmp_path / "firings.safetensors", "pt") as file:
        assert file.metadata()["which_weights"] == "trained"


def test_loggers_get_averages_under_a_name_of_their_own(tmp_path):
    numbers = {}

    class Logged(DummyLogger):
        def log_metrics(self, metrics, step=None):
            numbers.update(metrics)

    callbacks = [EMAWeightAveraging(decay=0.9), DistanceFromInit(per_tensor=False, averaged=True)]
    trainer_in(tmp_path, callbacks, logger=Logged()).fit(Plain(), loader())
    assert {"distance_from_init", "averaged/distance_from_init"} <= set(numbers)
    assert numbers["distance_from_init"] > numbers["averaged/distance_from_init"]


def test_averages_are_refused_where_there_are_none(tmp_path):
    with pytest.raises(ValueError, match="averaged = True, and no callback of the Trainer keeps averages"):
        trainer_in(tmp_path, [DistanceFromInit(averaged=True)]).fit(Plain(), loader())
    with pytest.raises(ValueError, match="a rule decides by the weights that are trained"):
        StopAtLoss(0.1, averaged=True)


def test_tables_for_people_name_averages(tmp_path):
    rows = [
        (0, 0, 0, "", "norm", "w", 1.0, float("nan"), "trained"),
        (0, 0, 0, "", "norm", "w", 2.0, float("nan"), "averaged"),
    ]
    names = ["step", "epoch", "replica", "split", "measure", "layer", "value", "stderr", "which_weights"]
    table = pd.DataFrame(rows, columns=names)
    assert final_table(table).which_weights.tolist() == ["trained", "averaged"]
    assert with_weights_in_names(table).measure.tolist() == ["norm", "averaged/norm"]
    assert "which_weights" not in final_table(table[:1])
    assert json.loads(with_weights_in_names(table.drop(columns="which_weights")).measure.to_json(orient="values")) == [
        "norm",
        "norm",
    ]


def test_holding_other_values_restores_every_bit():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = copy.deepcopy(net.state_dict())
    with holding(net, {"0.weight": torch.ones(2, 2), "1.running_mean": torch.ones(2)}):
        assert net[0].weight.tolist() == [[1, 1], [1, 1]] and net[1].running_mean.tolist() == [1, 1]
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.complex64, torch.int64], ids=str)
def test_fingerprints_tell_tensors_apart(kind):
    tensors = {"a": torch.arange(6).to(kind), "b": torch.ones(()).to(kind)}
    changed = {**tensors, "a": tensors["a"].clone()}
    assert torch.equal(fingerprint(tensors), fingerprint(changed))
    changed["a"][2] += 1
    assert not torch.equal(fingerprint(tensors), fingerprint(changed))
    assert EXACT and fingerprint({}).numel() == 0
