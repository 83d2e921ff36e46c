"""Callbacks in a foreign project measure the same as in lnsgd's own."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from lnsgd.callbacks import (
    ActiveNeurons,
    ClassAssociation,
    DeadNeurons,
    DistanceFromInit,
    GradientNorm,
    HessianTrace,
    ImplicitRegularizer,
    LargestOutput,
    Margin,
    Performance,
    SingularValues,
    StopAtLoss,
    StopAtMargin,
    StopAtZeroError,
    TopEigenvalues,
)
from lnsgd.data import InMemory
from lnsgd.losses import CrossEntropy
from lnsgd.measuring import loaders as reading
from lnsgd.modules import Classifier
from tests.callbacks.foreign_project import (
    CLASSES,
    DictProject,
    Examples,
    Network,
    Project,
    loader,
    project,
    rows,
    tensors,
    trainer_in,
)
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"], "nan_ok": True}
TRAIN, VAL, SUBSET = (33, 1), (13, 2), 20


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def all_callbacks(**options):
    few = {"examples": SUBSET, **options}
    exact = {**few, "max_overhead": None}
    return [
        ActiveNeurons(**few),
        ClassAssociation(**few, threshold=1.2, histograms=0),
        DeadNeurons(**few),
        GradientNorm(**exact),
        HessianTrace(**exact, method="hutchinson", max_probes=16),
        ImplicitRegularizer(**exact),
        LargestOutput(**few),
        Margin(**few),
        Performance(**few),
        SingularValues(**few),
        TopEigenvalues(**exact, max_products=5),
        StopAtLoss(0.0, **few),
        StopAtMargin(1e9, **few),
        StopAtZeroError(1000, **few),
        DistanceFromInit(),
    ]


def measured(folder, module, callbacks, *loaders, step=0, **options):
    trainer_in(folder, callbacks, **options).fit(module, *loaders)
    return rows(folder, step)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return what lnsgd's own module and data give for the network before its first step."""
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    module = Classifier(Network(), CrossEntropy())
    data = InMemory(tensors(*TRAIN), tensors(*VAL), batch_size=8, eval_batch_size=8)
    trainer_in(folder, all_callbacks()).fit(module, datamodule=data)
    return rows(folder, 0)


def same(found, expected):
    counts = {key for key in expected if key[1].endswith("_count")}
    assert counts and {key: found[key] for key in counts} == {key: expected[key] for key in counts}
    assert found == pytest.approx(expected, **APPROX)


def dict_loader(size_and_seed):
    return DataLoader(Examples(*tensors(*size_and_seed), as_dict=True), 8)


def as_pair(batch):
    return batch["pixel_values"], batch["labels"]


@pytest.mark.parametrize("as_list", [False, True], ids=["loader", "list-of-one"])
def test_numbers_equal_those_of_data_of_lnsgd(own, tmp_path, as_list):
    val = [loader(*VAL)] if as_list else loader(*VAL)
    same(measured(tmp_path, project(), all_callbacks(), loader(*TRAIN, shuffle=True), val), own)
    assert {key[2] for key in own} == {"train", "val", ""}
    assert 0 < own[0, "associated_count", "val", "net.layers.1"] < 8


@pytest.mark.parametrize("options", [{"batch": as_pair}, {}], ids=["batch", "by-default"])
def test_dictionary_batches_are_measured(own, tmp_path, options):
    callbacks = all_callbacks(**options)
    same(measured(tmp_path, project(DictProject), callbacks, dict_loader(TRAIN), dict_loader(VAL)), own)


@pytest.mark.parametrize("form", ["by-split", "function"])
def test_given_data_is_measured(own, tmp_path, form):
    given = {"train": loader(*TRAIN), "val": loader(*VAL)}
    other = loader(40, seed=7)
    callbacks = all_callbacks(data=given if form == "by-split" else given.__getitem__)
    same(measured(tmp_path, project(), callbacks, other, loader(9, seed=8)), own)


def test_two_callbacks_measure_different_data(own, tmp_path):
    """They do not share passes although splits, sites and examples are the same."""
    other = {"train": loader(16, seed=9)}
    callbacks = [ActiveNeurons(splits=["train"], examples=SUBSET), DeadNeurons(splits=["train"], data=other)]
    found = measured(tmp_path, project(), callbacks, loader(*TRAIN))
    by_hand = project().net.layers[0](other["train"].dataset.tensors[0]) > 0
    assert found[0, "dead_count", "train", "net.layers.1"] == (~by_hand.any(0)).sum()
    key = 0, "active_count", "train", "net.layers.1"
    assert found[key] == own[key]


def test_test_split_is_requested_from_the_module(tmp_path):
    class WithTest(Project):
        def test_dataloader(self):
            return loader(*VAL)

    found = measured(tmp_path, project(WithTest), [Performance(splits=["test"])], loader(*TRAIN))
    inputs, labels = tensors(*VAL)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(project()(inputs), labels).item()
    assert found[0, "loss", "test", ""] == pytest.approx(expected, **APPROX)


def test_validation_split_is_measured_before_validation_runs(own, tmp_path):
    found = measured(tmp_path, project(), [Performance()], loader(*TRAIN), loader(*VAL), check_val_every_n_epoch=5)
    assert found[0, "loss", "val", ""] == pytest.approx(own[0, "loss", "val", ""], **APPROX)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        pytest.param(None, CLASSES, id="largest-label"),
        pytest.param(["a", "b", "c", "d", "e"], 5, id="said-by-the-data-set"),  # also where no example has them
    ],
)
def test_number_of_classes_is_found(tmp_path, said, number):
    data = loader(*TRAIN)
    if said is not None:
        data.dataset.classes = said
    measured(tmp_path, project(), [ClassAssociation(splits=["train"], histograms=0)], data)
    assert {len(fired) for fired in load_file(tmp_path / "firings.safetensors").values()} == {number}


def test_augmented_data_is_the_same_at_every_reading(tmp_path):
    """Also if it is not kept in memory, and for two callbacks: only the network makes a difference."""
    data = DataLoader(Examples(*tensors(*TRAIN), augment=True), 8, shuffle=True)
    for name, kept in (("kept", reading._KEPT_BYTES), ("read-anew", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "_KEPT_BYTES", kept)
            callbacks = [Performance(splits=["train"], examples=SUBSET, every_n_steps=2)]
            measured(tmp_path / name, project(lr=0.0), callbacks, data)
    losses = [v for name in ("kept", "read-anew") for key, v in rows(tmp_path / name).items() if key[1] == "loss"]
    assert len(losses) == 8 and len(set(losses)) == 1
    clean = measured(tmp_path / "clean", project(), [Performance(splits=["train"], examples=SUBSET)], loader(*TRAIN))
    assert clean[0, "loss", "train", ""] != losses[0]


def test_examples_are_read_once_for_all_callbacks(tmp_path):
    data = Examples(*tensors(*TRAIN))
    given = {split: DataLoader(data, 8) for split in ("train", "val")}
    measured(tmp_path, project(), all_callbacks(examples=None, data=given), loader(*TRAIN), loader(*VAL))
    # As the training set, and as the validation set, in which four examples each are read for the check of the network.
    assert sorted(set(data.reads)) == [2, 4] and data.reads.count(4) == 4


def test_reloaded_data_is_read_again(tmp_path):
    class Reloading(Project):
        def train_dataloader(self):
            return loader(9, seed=self.trainer.current_epoch)

    module = project(Reloading, lr=0.0)
    found = measured(
        tmp_path,
        module,
        [Performance(splits=["train"])],
        step=None,
        max_epochs=3,
        reload_dataloaders_every_n_epochs=1,
    )
    with torch.no_grad():
        expected = [
            nn.functional.cross_entropy(module(x), y).item() for x, y in (tensors(9, seed) for seed in range(3))
        ]
    losses = [found[step, "loss", "train", ""] for step in (0, 2, 4, 6)]
    assert losses == pytest.approx([expected[0], *expected], **APPROX)
    assert len(set(expected)) == 3
