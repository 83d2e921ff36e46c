"""Callbacks for derivatives log the numbers of their measures on a fixed subset, with and without replicas."""

import csv
import math

import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from lnsgd import measures, rng
from lnsgd.callbacks import GradientNorm, ImplicitRegularizer, SpectralDensity, TopEigenvalues
from lnsgd.data import InMemory
from lnsgd.loggers import CSVLogger
from lnsgd.losses import CrossEntropy, LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import ReplicaGrid, ReplicatedData, ReplicatedModule

INPUTS, CLASSES, STEPS, EXAMPLES = 5, 3, 4, 30
SCHEDULE = {"every_n_steps": 2, "max_overhead": None}
CALLBACKS = {
    "TopEigenvalues": lambda **options: TopEigenvalues(count=2, **options),
    "GradientNorm": GradientNorm,
    "ImplicitRegularizer": ImplicitRegularizer,
}
REPLICAS = ReplicaGrid(seeds=2, lr=[0.1, 1.0]).replicas(0)


class Images(pl.loggers.Logger):
    """A logger that keeps the images it is given, by name."""

    def __init__(self):
        super().__init__()
        self.images = {}

    name = version = "images"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None):
        self.images[key] = (images[0], step)


def data(classes=CLASSES):
    source = torch.Generator().manual_seed(0)
    sets = [
        (torch.randn(n, INPUTS, generator=source), torch.randint(classes, (n,), generator=source)) for n in (40, 30, 20)
    ]
    return InMemory(*sets, batch_size=10, eval_batch_size=16)


def classifier(activation="tanh"):
    torch.manual_seed(0)
    return Classifier(MLP([INPUTS, 6, CLASSES], activation=activation), LogisticLoss())


def trainer_in(folder, callbacks, *loggers, **options):
    return pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=[CSVLogger(str(folder)), *loggers],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_steps": STEPS, **options},
    )


def subset(source, split="train"):
    """Return the batches that callbacks measure on."""
    return [(batch.inputs, batch.labels) for batch in source.measurement_dataloader(split, EXAMPLES)]


def expected(module, source, split="train", loss=None):
    """Return the final numbers by (measure, layer), from the measures themselves."""
    batches, loss = subset(source, split), loss or module.loss
    top = measures.top_eigenvalues(module, loss, batches, count=2, generator=rng.generator(0, "probes"))
    norm = measures.gradient_norm(module, loss, batches)
    return {
        ("top_eigenvalue_1", ""): top.values[0].item(),
        ("top_eigenvalue_2", ""): top.values[1].item(),
        ("top_eigenvalue_residual", ""): top.residuals.max().item(),
        ("gradient_norm", ""): norm.total,
        **{("gradient_norm", name): value for name, value in norm.per_tensor.items()},
        ("implicit_regularizer", ""): measures.implicit_regularizer(module, batches),
    }


def rows_of(folder):
    return pq.read_table(folder / "measures.parquet").to_pylist()


@pytest.fixture(scope="module", params=["alone", "replicas"])
def trained(request, tmp_path_factory):
    """Return the folder of a run, its images, and by replica the final network and its data."""
    folder, images = tmp_path_factory.mktemp(request.param), Images()
    callbacks = [make(examples=EXAMPLES, **SCHEDULE) for make in CALLBACKS.values()]
    callbacks += [SpectralDensity(split, examples=EXAMPLES, probes=3, steps=7, top=2) for split in ("train", "val")]
    trainer = trainer_in(folder, callbacks, images)
    if request.param == "alone":
        module, source = classifier(), data()
        trainer.fit(module, datamodule=source)
        return folder, images.images, {0: (module, source)}
    many, source = ReplicatedModule(classifier(), REPLICAS), ReplicatedData(data(), REPLICAS)
    trainer.fit(many, datamodule=source)
    return folder, images.images, {i: (many.replica(i), source.of_replica(i)) for i in range(len(REPLICAS))}


def test_final_numbers_belong_to_the_final_weights(trained):
    folder, _, networks = trained
    for replica, (module, source) in networks.items():
        of_replica = [row for row in rows_of(folder) if row["replica"] == replica]
        final = {(row["measure"], row["layer"]): row["value"] for row in of_replica if row["step"] == STEPS}
        assert final == pytest.approx(expected(module, source), rel=1e-5, abs=1e-6)
        assert all(row["split"] == "train" and math.isnan(row["stderr"]) for row in of_replica)


def test_numbers_change_along_training(trained):
    folder, *_ = trained
    values = {}
    for row in rows_of(folder):
        if row["replica"] == 0:
            values.setdefault((row["measure"], row["layer"]), []).append(row["value"])
    for name, series in values.items():
        assert len(set(series)) == 3, name  # steps 0, 2 and 4


def test_loggers_get_numbers_by_name(trained):
    folder, *_ = trained
    with (folder / "metrics.csv").open(newline="") as file:
        names = csv.DictReader(file).fieldnames
    for name in ("top_eigenvalue_1/train", "gradient_norm/train/net.layers.0.weight", "implicit_regularizer/train"):
        assert any(name in column for column in names), name


def test_spectra_are_saved_and_drawn_for_one_replica_per_setting(trained):
    folder, images, networks = trained
    first = {replica.lr: r for r, replica in reversed(list(enumerate(REPLICAS)))}  # of each learning rate
    chosen = {"": 0} if len(networks) == 1 else {f"replica{r}/": r for r in first.values()}
    pictures = {path.name for path in (folder / "figures").iterdir()}
    for split in ("train", "val"):
        kept = load_file(folder / f"spectral_density_{split}.safetensors")
        assert set(kept) == {f"{name}{part}" for name in chosen for part in ("nodes", "weights")}
        for name, replica in chosen.items():
            module, source = networks[replica]
            found = measures.spectral_density(
                module, module.loss, subset(source, split), probes=3, steps=7, generator=rng.generator(0, "probes", 0)
            )
            torch.testing.assert_close(kept[f"{name}nodes"], found.nodes, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(kept[f"{name}weights"], found.weights, rtol=1e-3, atol=1e-4)
            image, step = images[f"spectral_density/{name}{split}"]
            assert image.ndim == 3
            assert step == STEPS
            assert f"spectral_density_{name.replace('/', '_')}{split}.png" in pictures
    assert len(pictures) == len(images) == 2 * len(chosen)


@pytest.mark.parametrize("name", CALLBACKS)
def test_two_callbacks_of_one_class_measure_separately(name, tmp_path):
    """They differ in settings; Lightning needs a name for the state of each."""
    module, source = classifier(), data()
    callbacks = [CALLBACKS[name](split=split, examples=EXAMPLES, **SCHEDULE) for split in ("train", "val")]
    trainer_in(tmp_path, callbacks).fit(module, datamodule=source)
    final = {(row["measure"], row["split"], row["layer"]): row for row in rows_of(tmp_path) if row["step"] == STEPS}
    assert {split for _, split, _ in final} == {"train", "val"}
    for split in ("train", "val"):
        reference = expected(module, source, split)
        for measure, of_split, layer in final:
            if of_split == split:
                value = final[measure, split, layer]["value"]
                assert value == pytest.approx(reference[measure, layer], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["TopEigenvalues", "GradientNorm"])
def test_given_loss_is_used(name, tmp_path):
    module, source = classifier(), data()
    callback = CALLBACKS[name](examples=EXAMPLES, loss=CrossEntropy(), **SCHEDULE)
    trainer_in(tmp_path, [callback]).fit(module, datamodule=source)
    reference = expected(module, source, loss=CrossEntropy())
    for row in rows_of(tmp_path):
        if row["step"] == STEPS:
            assert row["value"] == pytest.approx(reference[row["measure"], row["layer"]], rel=1e-5, abs=1e-6)


def test_only_totals_are_logged_without_per_tensor(tmp_path):
    trainer = trainer_in(tmp_path, [GradientNorm(per_tensor=False, examples=EXAMPLES)])
    trainer.fit(classifier(), datamodule=data())
    assert {row["layer"] for row in rows_of(tmp_path)} == {""}


def test_two_processes_measure_the_same_as_one(tmp_path):
    kept, measured = [], []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        callbacks = [make(examples=EXAMPLES, **SCHEDULE) for make in CALLBACKS.values()]
        callbacks.append(SpectralDensity(examples=EXAMPLES, probes=2, steps=5, top=2))
        trainer = trainer_in(folder, callbacks, devices=devices, strategy="ddp_fork" if devices > 1 else "auto")
        trainer.fit(classifier(), datamodule=data())
        kept.append(load_file(folder / "spectral_density_train.safetensors"))
        measured.append(rows_of(folder))
    for one, two in zip(*measured, strict=True):
        assert two["value"] == pytest.approx(one["value"], rel=1e-4, abs=1e-5)
        assert all(two[key] == one[key] for key in ("step", "epoch", "split", "measure", "layer"))
    for part in ("nodes", "weights"):
        torch.testing.assert_close(kept[1][part], kept[0][part], rtol=1e-3, atol=1e-4)


class Diverging(pl.Callback):
    """A callback that makes the weights infinite in the middle of training."""

    def on_train_batch_end(self, trainer, module, *args):
        if trainer.global_step == 2:
            with torch.no_grad():
                module.net.layers[0].weight.fill_(torch.inf)


def test_diverged_network_gives_nan_and_no_picture(tmp_path):
    callbacks = [make(examples=EXAMPLES, **SCHEDULE) for make in CALLBACKS.values()]
    trainer = trainer_in(tmp_path, [Diverging(), *callbacks, SpectralDensity(examples=EXAMPLES, probes=1, steps=2)])
    trainer.fit(classifier("relu"), datamodule=data())
    rows = rows_of(tmp_path)
    names = {"top_eigenvalue_1", "top_eigenvalue_2", "top_eigenvalue_residual", "gradient_norm", "implicit_regularizer"}
    for step, diverged in ((0, False), (2, True), (4, True)):
        values = {row["measure"]: row["value"] for row in rows if row["step"] == step and not row["layer"]}
        assert values.keys() == names
        assert all(math.isnan(value) == diverged for value in values.values())
    assert not (tmp_path / "figures").exists()
    assert not (tmp_path / "spectral_density_train.safetensors").exists()


def test_spectrum_of_fewer_parameters_than_marked_eigenvalues(tmp_path):
    module = Classifier(MLP([INPUTS, 1], bias=False), LogisticLoss())
    trainer_in(tmp_path, [SpectralDensity(examples=EXAMPLES, top=10)]).fit(module, datamodule=data(classes=2))
    assert load_file(tmp_path / "spectral_density_train.safetensors")["nodes"].shape == (8, INPUTS)


def test_no_eigenvalues_are_computed_with_top_zero(tmp_path, monkeypatch):
    def unused(*args, **options):
        raise AssertionError("no eigenvalues were asked for")

    monkeypatch.setattr(measures, "top_eigenvalues", unused)
    callback = SpectralDensity(examples=EXAMPLES, probes=1, steps=3, top=0)
    trainer_in(tmp_path, [callback]).fit(classifier(), datamodule=data())
    assert (tmp_path / "figures" / "spectral_density_train.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        pytest.param(lambda: TopEigenvalues(count=0), "count = 0", id="count"),
        pytest.param(lambda: TopEigenvalues(rtol=-1.0), "rtol = -1", id="rtol"),
        pytest.param(lambda: TopEigenvalues(count=3, max_products=2), "max_products = 2", id="products"),
        pytest.param(lambda: TopEigenvalues(max_overhead=0.0), "max_overhead = 0", id="overhead"),
        pytest.param(lambda: GradientNorm(every_n_steps=1, log_spaced=2), "give one schedule", id="schedules"),
        pytest.param(lambda: SpectralDensity(probes=0), "probes = 0", id="probes"),
        pytest.param(lambda: SpectralDensity(steps=0), "steps = 0", id="steps"),
        pytest.param(lambda: SpectralDensity(top=-1), "top = -1", id="top"),
        pytest.param(lambda: SpectralDensity(width=0.0), "width = 0", id="width"),
    ],
)
def test_settings_out_of_range_raise_before_training(make, match):
    with pytest.raises(ValueError, match=match):
        make()
