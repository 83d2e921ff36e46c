"""Measuring callbacks log the right numbers at the right steps, to loggers and to measures.parquet."""

import copy
import csv
import math

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from safetensors.torch import load_file

from lnsgd import measures, rng
from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace, SingularValues
from lnsgd.data import MNIST
from lnsgd.loggers import CSVLogger
from lnsgd.losses import LogisticLoss
from lnsgd.measuring import Subject
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from tests.reference.measures import (
    associated_loop,
    firings_loop,
    flat_distance,
    mean_active_loop,
    relu_net_logistic_trace,
)
from tests.tolerances import EXACT, STANDARD_ERRORS

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
UNITS = 12
SITE = "net.activations.0"
STEPS_PER_EPOCH = 4
COLUMNS = ["step", "epoch", "replica", "split", "measure", "layer", "value", "stderr", "which_weights"]


def data():
    return MNIST(source="sample", subset=200, batch_size=50, val_size=300, eval_batch_size=128)


def classifier():
    torch.manual_seed(0)
    return Classifier(MLP([784, UNITS, 10]), loss=LogisticLoss())


def trainer_in(folder, callbacks, resume=False, **options):
    return pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=CSVLogger(str(folder), resume=resume),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{"enable_checkpointing": False, "max_epochs": 2, **options},
    )


def parquet(folder):
    return pq.read_table(folder / "measures.parquet").to_pylist()


def metrics(folder):
    """Return the rows of metrics.csv by step, without empty fields."""
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): {k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)}


def measured_steps(folder, measure):
    return sorted({row["step"] for row in parquet(folder) if row["measure"] == measure})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train two epochs with four callbacks; return folder, trainer, trained module and initial weights."""
    folder, module = tmp_path_factory.mktemp("run"), classifier()
    init = copy.deepcopy(module.state_dict())
    callbacks = [
        ActiveNeurons(),
        ClassAssociation(threshold=1.5, histograms=30),
        DistanceFromInit(),
        HessianTrace(examples=60, method="hutchinson", max_probes=64, max_overhead=None),
    ]
    trainer = trainer_in(folder, callbacks)
    trainer.fit(module, datamodule=data())
    return folder, trainer, module, init


def final(folder):
    """Return the numbers of the last step by (measure, split, layer)."""
    rows = parquet(folder)
    last = max(row["step"] for row in rows)
    return {(row["measure"], row["split"], row["layer"]): row for row in rows if row["step"] == last}


def final_preactivations(trainer, module, split):
    """Return pre-activations in float64 and labels of a whole split, from the tensors of the DataModule."""
    examples = trainer.datamodule.splits[split]
    layer = module.net.layers[0]
    inputs = examples.inputs.flatten(1).double() / 255
    z = inputs @ layer.weight.detach().double().T + layer.bias.detach().double()
    return z.tolist(), examples.labels.tolist()


@pytest.mark.parametrize("split", ["train", "val"])
def test_active_neurons_belong_to_the_final_weights(run, split):
    folder, trainer, module, _ = run
    expected = mean_active_loop(final_preactivations(trainer, module, split)[0])
    logged = final(folder)
    assert 0 < expected < UNITS
    assert logged["active_count", split, SITE]["value"] == pytest.approx(expected, **APPROX)
    assert logged["active_fraction", split, SITE]["value"] == pytest.approx(expected / UNITS, **APPROX)


@pytest.mark.parametrize("split", ["train", "val"])
def test_associated_neurons_belong_to_the_final_weights(run, split):
    folder, trainer, module, _ = run
    firings = firings_loop(*final_preactivations(trainer, module, split), 10)
    expected = sum(c >= 0 for c in associated_loop(firings, 1.5))
    logged = final(folder)
    assert logged["associated_count", split, SITE]["value"] == expected
    assert logged["associated_fraction", split, SITE]["value"] == pytest.approx(expected / UNITS, **APPROX)


def measured(callback, trainer, module):
    """Return what a callback measures of the trained network."""
    return callback.measure(Subject(module, trainer.datamodule), callback.source, callback.context(trainer))


def test_class_association_uses_its_settings(run):
    _, trainer, module, _ = run
    z, labels = final_preactivations(trainer, module, "train")
    counts = firings_loop(z, labels, 10)
    rates = [[count / labels.count(c) for count in row] for c, row in enumerate(counts)]
    expected, found = {}, {}
    for threshold in (1.02, 1.1, 1.5, 2.0):
        for by_rates, firings in ((False, counts), (True, rates)):
            expected[threshold, by_rates] = sum(c >= 0 for c in associated_loop(firings, threshold))
            callback = ClassAssociation(threshold=threshold, rates=by_rates, splits=["train"])
            callback.setup(trainer, module, "fit")
            found[threshold, by_rates] = measured(callback, trainer, module)[0].value
    assert found == expected
    # Both options matter for this network.
    assert expected[1.02, False] != expected[2.0, False]
    assert any(expected[threshold, False] != expected[threshold, True] for threshold, _ in expected)


def test_distance_belongs_to_the_final_weights(run):
    folder, _, module, init = run
    logged = final(folder)
    now = dict(module.named_parameters())
    total = flat_distance(now.values(), [init[name] for name in now])
    assert total > 0.01
    assert logged["distance_from_init", "", ""]["value"] == pytest.approx(total, **APPROX)
    for name, p in now.items():
        expected = flat_distance([p], [init[name]])
        assert logged["distance_from_init", "", name]["value"] == pytest.approx(expected, **APPROX)


def trace_batches(trainer):
    return [(b.inputs, b.labels) for b in trainer.datamodule.measurement_dataloader("train", 60)]


def test_hessian_trace_belongs_to_the_final_weights(run):
    folder, trainer, module, _ = run
    inputs = torch.cat([x for x, _ in trace_batches(trainer)])
    assert len(inputs) == 60
    logged = final(folder)["hessian_trace", "train", ""]
    expected = relu_net_logistic_trace(*module.net.layers, inputs)
    assert abs(logged["value"] - expected) <= STANDARD_ERRORS * logged["stderr"]
    assert 0 < logged["stderr"] < 0.2 * expected


def test_hessian_trace_equals_the_function_with_keyed_probes(run):
    folder, trainer, module, _ = run
    probes = rng.generator(0, "probes")
    direct = measures.hessian_trace(
        module.net, LogisticLoss(), list(trace_batches(trainer)), method="hutchinson", max_probes=64, generator=probes
    )
    logged = final(folder)["hessian_trace", "train", ""]
    assert (logged["value"], logged["stderr"]) == (direct.total.value, direct.total.standard_error)


def test_hessian_trace_uses_another_loss_split_and_seed(run):
    _, trainer, module, _ = run
    loss, few = lambda outputs, labels: outputs.sum(1), {"method": "hutchinson", "max_probes": 16}
    callback = HessianTrace(split="val", examples=40, loss=loss, seed=1, **few)
    found, *_ = measured(callback, trainer, module)
    assert (found.split, found.stderr >= 0) == ("val", True)
    # The outputs of this net are linear in each tensor alone: any trace of their sum is pure probe noise.
    assert abs(found.value) <= STANDARD_ERRORS * found.stderr
    other = measured(HessianTrace(split="val", examples=40, loss=loss, seed=2, **few), trainer, module)
    assert other[0].value != found.value


def test_initial_network_and_every_epoch_are_measured(run):
    folder, *_ = run
    for measure in ("active_count", "associated_count", "distance_from_init", "hessian_trace"):
        assert measured_steps(folder, measure) == [0, 4, 8]
    rows = parquet(folder)
    start = [row["value"] for row in rows if row["step"] == 0 and row["measure"] == "distance_from_init"]
    assert len(start) == 5
    assert set(start) == {0.0}
    assert {(row["step"], row["epoch"]) for row in rows} == {(0, 0), (4, 0), (8, 1)}


def test_parquet_is_tidy(run):
    folder, *_ = run
    rows = parquet(folder)
    assert pq.read_table(folder / "measures.parquet").column_names == COLUMNS
    assert {row["replica"] for row in rows} == {0}
    assert {row["which_weights"] for row in rows} == {"trained"}
    keys = [(row["step"], row["measure"], row["split"], row["layer"]) for row in rows]
    assert len(set(keys)) == len(keys)
    # Per step: 2 splits × (2 + 2) numbers of one site and of all, 4 tensors and the total of distance and trace.
    assert len(rows) == 3 * (2 * 2 * 4 + 5 + 5)
    for row in rows:
        assert math.isnan(row["stderr"]) == (row["measure"] != "hessian_trace")


def test_parquet_and_csv_hold_the_same_numbers(run):
    folder, *_ = run
    logged, measured = metrics(folder), set()
    for row in parquet(folder):
        name = "/".join(part for part in (row["measure"], row["split"], row["layer"]) if part)
        assert float(logged[row["step"]][name]) == row["value"]
        assert int(logged[row["step"]]["epoch"]) == row["epoch"]
        measured.add((row["step"], name))
        if row["measure"] == "hessian_trace":
            assert float(logged[row["step"]][f"{name}/stderr"]) == row["stderr"]
            measured.add((row["step"], f"{name}/stderr"))
    of_training = ("step", "epoch", "train/", "val/")
    of_measures = {(step, name) for step, row in logged.items() for name in row if not name.startswith(of_training)}
    assert of_measures == measured


def test_firings_are_saved_and_drawn_at_the_end(run):
    folder, trainer, module, _ = run
    kept = load_file(folder / "firings.safetensors")
    assert list(kept) == [SITE]
    assert kept[SITE].tolist() == firings_loop(*final_preactivations(trainer, module, "train"), 10)
    picture = folder / "figures" / f"firing_histograms_{SITE}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.rglob("*.part")] == []


def test_no_figures_are_drawn_unless_asked_for(tmp_path):
    trainer = trainer_in(tmp_path, [ClassAssociation()], max_steps=1)
    trainer.fit(classifier(), datamodule=data())
    assert (tmp_path / "firings.safetensors").exists()
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("schedule", "length", "expected"),
    [
        pytest.param({}, {"max_epochs": 3}, [0, 4, 8, 12], id="default"),
        pytest.param({"every_n_epochs": 1}, {"max_epochs": 3}, [0, 4, 8, 12], id="every-epoch"),
        pytest.param({"every_n_epochs": 2}, {"max_epochs": 3}, [0, 8, 12], id="every-second-epoch-and-the-last"),
        pytest.param({"every_n_steps": 1}, {"max_epochs": 1}, [0, 1, 2, 3, 4], id="every-step"),
        pytest.param({"every_n_steps": 5}, {"max_epochs": 3}, [0, 5, 10, 12], id="every-fifth-step-and-the-last"),
        pytest.param({"log_spaced": 3}, {"max_epochs": 3}, [0, 1, 2, 5, 10, 12], id="log-spaced-and-the-last"),
        pytest.param({"every_n_epochs": 5}, {"max_steps": 6}, [0, 6], id="max-steps-inside-an-epoch"),
        pytest.param({"every_n_steps": 4}, {"max_steps": 6}, [0, 4, 6], id="steps-and-max-steps"),
        pytest.param(
            {"every_n_steps": 2}, {"max_epochs": 2, "accumulate_grad_batches": 2}, [0, 2, 4], id="accumulated-gradients"
        ),
    ],
)
def test_schedule_decides_the_measured_steps(schedule, length, expected, tmp_path):
    trainer = trainer_in(tmp_path, [DistanceFromInit(**schedule)], **{"max_epochs": -1, **length})
    trainer.fit(classifier(), datamodule=data())
    assert measured_steps(tmp_path, "distance_from_init") == expected
    logged = metrics(tmp_path)
    assert [step for step in sorted(logged) if "distance_from_init" in logged[step]] == expected


@pytest.mark.parametrize("first", ["stop", "measure"])
def test_last_network_is_measured_if_training_stops_early(first, tmp_path):
    # A threshold that the first validation passes stops training after one epoch of ten.
    stop, measure = EarlyStopping("val/loss", stopping_threshold=1e9), DistanceFromInit(every_n_epochs=5)
    callbacks = [stop, measure] if first == "stop" else [measure, stop]
    trainer = trainer_in(tmp_path, callbacks, max_epochs=10)
    trainer.fit(classifier(), datamodule=data())
    assert trainer.global_step == STEPS_PER_EPOCH
    assert measured_steps(tmp_path, "distance_from_init") == [0, STEPS_PER_EPOCH]


def test_one_measure_is_taken_twice_with_different_settings(tmp_path):
    callbacks = [HessianTrace(split=split, examples=20, max_overhead=None) for split in ("train", "val")]
    trainer_in(tmp_path, callbacks, max_steps=1).fit(classifier(), datamodule=data())
    assert {(row["step"], row["split"]) for row in parquet(tmp_path)} == {
        (step, split) for step in (0, 1) for split in ("train", "val")
    }


class CountedDistance(DistanceFromInit):
    """A callback that counts its measurements."""

    calls = 0

    def measure(self, subject, source, context):
        self.calls += 1
        return super().measure(subject, source, context)


def test_no_step_is_measured_twice(tmp_path):
    # Two batches a step: a step is seen after both of them, and the last one at the end of training too.
    counted = CountedDistance(every_n_steps=1)
    trainer_in(tmp_path, [counted], accumulate_grad_batches=2).fit(classifier(), datamodule=data())
    assert counted.calls == len([0, 1, 2, 3, 4])


def test_resumed_run_does_not_repeat_the_last_measurement(tmp_path):
    # With two batches a step, the batch after the checkpoint is still of the checkpoint's step.
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    length = {"accumulate_grad_batches": 2, "max_epochs": 1}
    first = trainer_in(tmp_path, [CountedDistance(every_n_steps=1), keep], enable_checkpointing=True, **length)
    first.fit(classifier(), datamodule=data())
    counted = CountedDistance(every_n_steps=1)
    second = trainer_in(tmp_path, [counted], resume=True, **length)
    second.fit(classifier(), datamodule=data(), ckpt_path=tmp_path / "step=1.ckpt")
    assert counted.calls == len([2])


def test_only_totals_are_logged_without_per_tensor(tmp_path):
    trainer = trainer_in(tmp_path, [DistanceFromInit(per_tensor=False)], max_steps=1)
    trainer.fit(classifier(), datamodule=data())
    assert {row["layer"] for row in parquet(tmp_path)} == {""}


@pytest.mark.parametrize("callback", [ActiveNeurons, ClassAssociation])
def test_unmatched_layer_pattern_raises_before_training(callback, tmp_path):
    trainer = trainer_in(tmp_path, [callback(layers=["net.relu*"])])
    with pytest.raises(ValueError, match=r"'net\.relu\*' matches no module.*net\.activations\.0 \(ReLU\)"):
        trainer.fit(classifier(), datamodule=data())
    assert trainer.global_step == 0


def test_layer_patterns_select_sites(tmp_path):
    trainer = trainer_in(tmp_path, [ActiveNeurons(layers=["*.layers.1"], splits=["val"])], max_steps=1)
    trainer.fit(classifier(), datamodule=data())
    assert {(row["layer"], row["split"]) for row in parquet(tmp_path)} == {("total", "val"), ("net.layers.1", "val")}


@pytest.mark.parametrize("callback", [ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace])
@pytest.mark.parametrize(
    "schedule",
    [
        {"every_n_epochs": 1, "every_n_steps": 10},
        {"every_n_epochs": 1, "log_spaced": 3},
        {"every_n_steps": 10, "log_spaced": 3},
    ],
    ids=lambda schedule: "-and-".join(schedule),
)
def test_two_schedules_raise(callback, schedule):
    with pytest.raises(ValueError, match="give one schedule"):
        callback(**schedule)


@pytest.mark.parametrize("name", ["every_n_epochs", "every_n_steps", "log_spaced"])
def test_schedule_below_one_raises(name):
    with pytest.raises(ValueError, match="0"):
        DistanceFromInit(**{name: 0})


@pytest.mark.parametrize("setting", [{"max_probes": 1}, {"rtol": 0.0}, {"max_overhead": 0.0}], ids=str)
def test_hessian_trace_refuses_settings_out_of_range(setting):
    (name, value), *_ = setting.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        HessianTrace(**setting)


def resumable(**schedule):
    return [
        ActiveNeurons(**schedule, examples=100),
        DistanceFromInit(**schedule),
        HessianTrace(**schedule, examples=20, max_overhead=None),
    ]


def contents(folder):
    return (folder / "metrics.csv").read_text(), [[str(v) for v in row.values()] for row in parquet(folder)]


def test_resumed_run_writes_the_files_of_an_uninterrupted_run(tmp_path):
    module = classifier()
    init = [p.detach().clone() for p in module.parameters()]
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "resumed"
    trainer_in(undisturbed, resumable()).fit(classifier(), datamodule=data())
    first = trainer_in(folder, resumable(), max_epochs=1)
    first.fit(module, datamodule=data())
    first.save_checkpoint(folder / "last.ckpt")
    second = trainer_in(folder, resumable(), resume=True)
    resumed = classifier()
    second.fit(resumed, datamodule=data(), ckpt_path=folder / "last.ckpt")
    expected = flat_distance(list(resumed.parameters()), init)
    assert final(folder)["distance_from_init", "", ""]["value"] == pytest.approx(expected, **APPROX)
    assert contents(folder) == contents(undisturbed)


def test_run_resumed_inside_an_epoch_rewrites_lost_rows(tmp_path):
    # Killed after step 8, the newest checkpoint is of step 6: rows of steps 7 and 8 are written again.
    keep = ModelCheckpoint(tmp_path / "checkpoints", filename="{step}", every_n_train_steps=6, save_top_k=-1)
    first = trainer_in(tmp_path, [*resumable(every_n_steps=1), keep], enable_checkpointing=True)
    first.fit(classifier(), datamodule=data())
    before = contents(tmp_path)
    second = trainer_in(tmp_path, resumable(every_n_steps=1), resume=True)
    second.fit(classifier(), datamodule=data(), ckpt_path=tmp_path / "checkpoints" / "step=6.ckpt")
    assert second.global_step == 2 * STEPS_PER_EPOCH
    assert contents(tmp_path) == before


def test_resuming_without_the_initial_weights_raises(tmp_path):
    first = trainer_in(tmp_path, [], max_epochs=1)
    first.fit(classifier(), datamodule=data())
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = trainer_in(tmp_path, [DistanceFromInit()])
    with pytest.raises(ValueError, match="holds no initial weights"):
        second.fit(classifier(), datamodule=data(), ckpt_path=tmp_path / "last.ckpt")


def test_two_callbacks_of_one_class_measure_separately(tmp_path):
    """They differ in settings or schedule; Lightning needs a name for the state of each."""
    callbacks = [
        ClassAssociation(threshold=2, histograms=0),
        ClassAssociation(threshold=3, every_n_epochs=2, histograms=0),
        HessianTrace(split="train", examples=50, max_overhead=None),
        HessianTrace(split="val", examples=50, max_overhead=None),
        ActiveNeurons(at_steps=[3]),
    ]
    trainer_in(tmp_path, callbacks, max_epochs=1).fit(classifier(), datamodule=data())
    traces = {row["split"] for row in parquet(tmp_path) if row["measure"] == "hessian_trace"}
    assert traces == {"train", "val"}
    assert {row["step"] for row in parquet(tmp_path) if row["measure"] == "active_count"} == {0, 3, STEPS_PER_EPOCH}


class Shared(torch.nn.Module):
    """A network with one ReLU for two layers of different width."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(784, 12), torch.nn.Linear(12, 7), torch.nn.Linear(7, 10)])
        self.relu = torch.nn.ReLU()

    def preactivations(self, x):
        first = self.layers[0](x.flatten(1))
        return first, self.layers[1](self.relu(first))

    def forward(self, x):
        return self.layers[2](self.relu(self.preactivations(x)[1]))


def test_activation_module_called_twice_is_two_sites(tmp_path):
    trainer = trainer_in(tmp_path, [ActiveNeurons(splits=["val"]), SingularValues(splits=["val"])])
    trainer.fit(module := Classifier(Shared()), datamodule=data())
    with torch.no_grad():
        batches = trainer.datamodule.measurement_dataloader("val")
        by_layer = zip(*(module.net.preactivations(batch.inputs) for batch in batches))
        expected = [torch.cat(parts) for parts in by_layer]
    rows = [r for r in parquet(tmp_path) if r["step"] == trainer.global_step and r["split"] == "val"]
    for number, preactivations in enumerate(expected, 1):
        of_site = {r["measure"]: r["value"] for r in rows if r["layer"] == f"net.relu#{number}"}
        assert of_site["active_count"] == pytest.approx(mean_active_loop(preactivations), **APPROX)
        largest = torch.linalg.matrix_norm(preactivations.relu().double(), 2).item()
        assert of_site["singular_value_1"] == pytest.approx(largest, rel=1e-6)
    assert "net.relu" not in {row["layer"] for row in rows}


def test_pictures_are_drawn_as_long_as_the_budget_allows(tmp_path, caplog):
    callback = ClassAssociation(histograms=2, max_overhead=1e-9)
    with caplog.at_level("INFO"):
        trainer_in(tmp_path, [callback], max_steps=1).fit(classifier(), datamodule=data())
    assert (tmp_path / "firings.safetensors").exists()
    assert not (tmp_path / "figures").exists()
    assert "only 0 pictures are drawn, to keep max_overhead" in caplog.text
