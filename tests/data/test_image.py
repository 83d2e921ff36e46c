"""The base of the image data sets: merged classes, the mean image, memory shared by variants."""

import pickle
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

import lnsgd.data.image
from lnsgd import rng
from lnsgd.cli import main
from lnsgd.data import CIFAR10, MNIST, FashionMNIST
from lnsgd.data.image import ImageData
from lnsgd.data.mnist import IdxImageData
from lnsgd.data.tensors import LabelledTensors
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier
from lnsgd.replicas import ReplicaGrid, ReplicatedData
from tests.data.cifar_files import write_binary
from tests.small_config import instance, mlp, small_config, write_config
from tests.tolerances import EXACT, STANDARD_ERRORS

SPLITS = ("train", "val", "test")
HALVES = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
SIZES = {True: 2041, False: 30}  # more images than are summed at a time
PER_FILE = 12


class Photographs(ImageData):
    """Small images of random pixels, those of each place around a mean of its own."""

    class_names = tuple("0123456789")

    def load(self, train: bool) -> LabelledTensors:
        n, draw = SIZES[train], torch.Generator().manual_seed(int(train))
        images = torch.randint(256, (n, 3, 5, 4), generator=draw) * torch.arange(1, 61).view(3, 5, 4) // 60
        return LabelledTensors(images.to(torch.uint8), torch.arange(n) % 10)


def photographs(**options) -> Photographs:
    data = Photographs(**options)
    data.setup()
    return data


def plain_mean(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.mean(images.numpy() / 255, axis=0))


MEAN = plain_mean(Photographs().load(train=True).inputs)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- several classes as one ---


def test_ten_classes_become_two_labels():
    whole, halved = photographs(), photographs(classes=HALVES)
    assert (whole.num_classes, halved.num_classes) == (10, 2)
    for split in SPLITS:
        assert torch.equal(halved.splits[split].inputs, whole.splits[split].inputs)
        assert torch.equal(halved.splits[split].labels, whole.splits[split].labels // 5)


def test_labels_are_corrupted_among_merged_classes():
    clean, random = (photographs(classes=HALVES, corrupted_fraction=f).splits["train"].labels for f in (0, 1))
    assert set(random.tolist()) == {0, 1}
    changed = (random != clean).float().mean().item()
    assert abs(changed - 0.5) < STANDARD_ERRORS * 0.5 / SIZES[True] ** 0.5


EXPERIMENT = small_config(
    model={"net": mlp(784, 4, 1), "loss": instance("lnsgd.losses.LogisticLoss")},
    data={"subset": 20},
    trainer={"max_epochs": 1, "limit_val_batches": 1},
)


def test_merged_classes_and_centering_from_config_and_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(Path("plain.yaml"), EXPERIMENT)
    given = deepcopy(EXPERIMENT)
    given["data"]["init_args"] |= {"classes": [[0, 1, 2, 3, 4], 7], "center": True}
    write_config(Path("given.yaml"), given)
    options = ["--data.classes", "[[0, 1, 2, 3, 4], 7]", "--data.center", "true"]
    main(["fit", "--config", "given.yaml", "--run_dir", "one"])
    main(["fit", "--config", "plain.yaml", "--run_dir", "two", *options])
    main(["fit", "--config", "two/config.yaml", "--run_dir", "three"])
    for folder in ("one", "two", "three"):
        kept = yaml.safe_load(Path(folder, "config.yaml").read_text())["data"]["init_args"]
        assert (kept["classes"], kept["center"]) == ([[0, 1, 2, 3, 4], 7], True)
    rows = [Path(folder, "metrics.csv").read_text() for folder in ("one", "two", "three")]
    assert rows[0] == rows[1] == rows[2]


# --- the mean image ---


def test_the_mean_image_is_the_mean_of_the_training_set():
    mean = photographs(center=True).mean_image
    assert (mean.dtype, mean.shape) == (torch.float64, (3, 5, 4))
    torch.testing.assert_close(mean, MEAN, **EXACT)


OTHERS = {
    "classes": {"classes": [3, 8]},
    "joined classes": {"classes": [[0, 1], [2]]},
    "subset": {"subset": 7},
    "hold-out": {"val_size": 50},
    "seed": {"seed": 5, "corrupted_fraction": 0.5},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_the_mean_image_does_not_depend_on_the_subset(options):
    data = photographs(center=True, **options)
    assert torch.equal(data.mean_image, photographs(center=True).mean_image)
    for split in SPLITS:
        images = data.splits[split].inputs
        assert torch.equal(data.transform(images), images / 255 - data.mean_image.float())


def test_every_batch_is_centered_by_the_training_set(float64):
    data = photographs(center=True, batch_size=None)
    images = data.splits["test"].inputs.clone()
    for batches in (data.val_dataloader(), data.test_dataloader(), data.measurement_dataloader("test")):
        found = torch.cat([batch.inputs for batch in batches])
        torch.testing.assert_close(found, images.double() / 255 - MEAN, **EXACT)
    (training,) = data.train_dataloader()
    torch.testing.assert_close(training.inputs.mean(0), torch.zeros(3, 5, 4, dtype=torch.float64), **EXACT)
    assert torch.equal(data.splits["test"].inputs, images)  # the images themselves stay
    assert torch.equal(Photographs(center=True).transform(images), found)  # without splits, for a network of one's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inputs_have_the_default_type_and_unit(dtype):
    torch.set_default_dtype(dtype)
    try:
        inputs = photographs(center=True).transform(torch.full((2, 3, 5, 4), 255, dtype=torch.uint8))
    finally:
        torch.set_default_dtype(torch.float32)
    assert inputs.dtype == dtype
    torch.testing.assert_close(inputs, (1 - MEAN).to(dtype).expand(2, 3, 5, 4))


def test_a_mean_image_first_used_in_inference_serves_training(float64):
    data = photographs(center=True)
    with torch.inference_mode():
        data.transform(data.splits["val"].inputs)
    weight = torch.ones(3, 5, 4, requires_grad=True)
    (weight * data.mean_image).sum().backward()  # a tensor of inference mode cannot be kept for this
    assert torch.equal(weight.grad, data.mean_image)


def test_another_process_gets_the_same_inputs():
    data = photographs(center=True)
    images = data.splits["test"].inputs
    before = pickle.dumps(data)
    expected = data.transform(images)
    for sent in (before, pickle.dumps(data)):
        assert torch.equal(pickle.loads(sent).transform(images), expected)


def test_centering_and_standardizing_at_once_is_refused():
    with pytest.raises(ValueError, match=r"standardize = True and center = True.*set one of them to false") as error:
        Photographs(standardize=True, center=True)
    assert "\n" not in str(error.value)


# --- the official sets ---


def small_fashion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FashionMNIST:
    monkeypatch.setattr(IdxImageData, "sizes", {"train": 30, "t10k": 12})
    raw, draw = folder / "FashionMNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, n in IdxImageData.sizes.items():
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            header = np.array([8 * 256 + len(shape), *shape], ">u4").tobytes()
            content = draw.integers(0, 10, shape, np.uint8).tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(header + content)
    return FashionMNIST(str(folder), center=True)


def small_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch, center: bool = True) -> CIFAR10:
    monkeypatch.setattr(CIFAR10, "examples_per_file", PER_FILE)
    names, draw = ["test_batch", *(f"data_batch_{i}" for i in range(1, 6))], np.random.default_rng(0)
    for name in names:
        images = draw.integers(0, 256, (PER_FILE, 3072), np.uint8)
        write_binary(folder / "cifar-10-batches-bin", name, images, [*range(10), 0, 1])
    return CIFAR10(str(folder), center=center, batch_size=7)


def mnist_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MNIST:
    return MNIST(source="sample", center=True)


@pytest.mark.parametrize("make", [small_fashion, small_cifar10, mnist_sample])
def test_every_data_set_is_centered_by_its_own_mean(make, tmp_path, monkeypatch, float64):
    data = make(tmp_path, monkeypatch)
    data.setup()
    train = data.splits["train"].inputs
    torch.testing.assert_close(data.transform(train), train.double() / 255 - plain_mean(train), **EXACT)


def test_the_mean_of_the_full_mnist(full_data):
    train = MNIST(str(full_data)).load(train=True).inputs
    expected = torch.from_numpy(train.numpy().mean(0, dtype=np.float64) / 255)
    torch.testing.assert_close(MNIST(str(full_data), center=True).mean_image, expected, **EXACT)


def test_the_mean_of_the_full_cifar10(full_cifar10):
    data = CIFAR10(str(full_cifar10), center=True)
    expected = torch.from_numpy(data.load(train=True).inputs.numpy().mean(0, dtype=np.float64) / 255)
    torch.testing.assert_close(data.mean_image, expected, **EXACT)
    # Channel by channel, these are the four digits that `standardize` subtracts.
    torch.testing.assert_close(data.mean_image.mean((1, 2)), torch.tensor(CIFAR10.mean).double(), rtol=0, atol=5e-5)


def test_the_frame_of_a_crop_is_black_before_centering(tmp_path, monkeypatch):
    plain, centered = (small_cifar10(tmp_path, monkeypatch, center) for center in (False, True))
    plain.setup()
    centered.setup()
    for one, two in zip(plain.train_dataloader(), centered.train_dataloader(), strict=True):
        assert torch.equal(two.inputs, one.inputs - centered.mean_image.float())


# --- what variants share ---


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is loaded and averaged from now on."""
    calls, load, mean = [], Photographs.load, lnsgd.data.image._mean_of
    monkeypatch.setattr(Photographs, "load", lambda self, train: calls.append(f"load {train}") or load(self, train))
    monkeypatch.setattr(lnsgd.data.image, "_mean_of", lambda images: calls.append("mean") or mean(images))
    return calls


ONCE = ["load True", "load False", "mean"]


@pytest.mark.parametrize("set_up", [True, False], ids=["set-up", "new"])
def test_variants_share_images_and_mean(monkeypatch, set_up):
    calls = counted(monkeypatch)
    base = photographs(center=True, subset=20) if set_up else Photographs(center=True, subset=20)
    variants = [base.variant(seed) for seed in (1, 2)]
    variants.append(variants[0].variant(3, 10))
    for data in (*variants, base):
        data.transform(variants[0].splits["val"].inputs)
    assert calls == ONCE
    for split in SPLITS:
        assert len({data.splits[split].pool.data_ptr() for data in variants}) == 1


def test_replicas_share_images_and_see_the_data_of_their_runs_alone(monkeypatch):
    calls = counted(monkeypatch)
    options = {"center": True, "classes": HALVES, "val_size": 40, "batch_size": 8}
    replicas = ReplicaGrid(seeds=2, subset=[20, 50]).replicas(0)
    data = ReplicatedData(Photographs(**options), replicas)
    data.setup()
    pool, parts = data.training_sets()
    assert calls == ONCE
    assert len(pool) == SIZES[True]
    for replica, part in zip(replicas, parts, strict=True):
        alone = photographs(**options, seed=replica.seed, subset=replica.subset).splits["train"]
        torch.testing.assert_close(pool[part.rows].double(), alone.inputs.double() / 255 - MEAN, rtol=0, atol=1e-7)
        assert torch.equal(part.labels, alone.labels)


def trained(folder: Path, devices: int) -> torch.Tensor:
    """Weights after an epoch of four steps, which validation goes before."""
    with rng.forked(3, "init"):
        net = MLP([60, 6, 1])
    module = Classifier(net, LogisticLoss(), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        max_epochs=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Photographs(center=True, classes=HALVES, subset=33, batch_size=10))
    weights = torch.load(next(folder.rglob("*.ckpt")), weights_only=False)["state_dict"]
    return torch.cat([weight.flatten() for weight in weights.values()])


def test_two_processes_train_like_one(tmp_path, float64):
    one, two = (trained(tmp_path / str(devices), devices) for devices in (1, 2))
    torch.testing.assert_close(one, two, **EXACT)
