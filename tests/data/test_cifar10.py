"""CIFAR-10: its two official layouts, augmentation in training only, downloads and damage."""

import gzip
import hashlib
import os
import pickle
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torchvision.datasets

from lnsgd import rng
from lnsgd.data import CIFAR10
from lnsgd.data.cifar10 import read_binary, read_python
from lnsgd.label_noise import UniformNoise
from lnsgd.models import ResNet20
from lnsgd.modules import Classifier
from lnsgd.replicas import ReplicatedData
from tests.data.cifar_files import python2_pickle, write_binary, write_python
from tests.local_server import QuietHandler, serve
from tests.reference.streams import crop, places

PARTS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
NAMES = [name for names in PARTS.values() for name in names]
WRITERS = {"cifar-10-batches-py": write_python, "cifar-10-batches-bin": write_binary}
LAYOUTS = pytest.mark.parametrize("layout", WRITERS)
PER_FILE = 12


def file_of(layout: str, name: str) -> str:
    return f"{name}.bin" if layout.endswith("bin") else name


def content_of(name: str) -> tuple[np.ndarray, list[int]]:
    """Images (n, 3072) and labels of a small file, others for each."""
    draw = np.random.default_rng(NAMES.index(name))
    return draw.integers(0, 256, (PER_FILE, 3072), np.uint8), [int(label) for label in draw.permutation(PER_FILE) % 10]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, request) -> None:
    """Files of a few images, but where the full data set is asked for."""
    if "full_cifar10" not in request.fixturenames:
        monkeypatch.setattr(CIFAR10, "examples_per_file", PER_FILE)


def write(folder: Path, layout: str) -> Path:
    for name in NAMES:
        WRITERS[layout](folder / layout, name, *content_of(name))
    return folder / layout


def small_cifar10(folder: Path, layout: str = "cifar-10-batches-bin", **options) -> CIFAR10:
    write(folder, layout)
    data = CIFAR10(str(folder), **options)
    data.prepare_data()
    data.setup()
    return data


# --- the official files ---


@LAYOUTS
def test_files_are_read_in_order(tmp_path, layout):
    data = small_cifar10(tmp_path, layout)
    for split, part in (("train", "train"), ("val", "test"), ("test", "test")):
        found, expected = data.splits[split], [content_of(name) for name in PARTS[part]]
        images = np.concatenate([images for images, _ in expected])
        assert found.inputs.dtype == torch.uint8
        assert found.labels.dtype == torch.int64
        assert np.array_equal(found.inputs.numpy(), images.reshape(-1, 3, 32, 32))
        assert found.labels.tolist() == [label for _, labels in expected for label in labels]
    assert data.num_classes == 10


def test_both_layouts_give_the_same_data(tmp_path):
    one, two = (small_cifar10(tmp_path / layout, layout, val_size=7, subset=20, seed=3) for layout in WRITERS)
    for split in ("train", "val", "test"):
        assert torch.equal(one.splits[split].inputs, two.splits[split].inputs)
        assert torch.equal(one.splits[split].labels, two.splits[split].labels)


def test_a_complete_layout_is_preferred(tmp_path):
    write(tmp_path, "cifar-10-batches-bin")
    python = write(tmp_path, "cifar-10-batches-py")
    assert CIFAR10(str(tmp_path)).raw == python
    (python / "data_batch_3").unlink()
    assert CIFAR10(str(tmp_path)).raw == tmp_path / "cifar-10-batches-bin"


def official_entries(raw: Path, names: list[str]) -> list[list[str]]:
    """Files and checksums as torchvision lists them."""
    return [[name, hashlib.md5((raw / name).read_bytes()).hexdigest()] for name in names]


def trust(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the checksums in torchvision by those of the small files."""
    source = torchvision.datasets.CIFAR10
    (raw / "batches.meta").write_bytes(pickle.dumps({"label_names": [*CIFAR10.class_names]}))
    for part, names in PARTS.items():
        monkeypatch.setattr(source, f"{part}_list", official_entries(raw, names))
    meta = official_entries(raw, ["batches.meta"])[0]
    monkeypatch.setattr(source, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})


@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_pickles_are_read_as_torchvision_reads_them(tmp_path, monkeypatch, train):
    trust(write(tmp_path, "cifar-10-batches-py"), monkeypatch)
    found = CIFAR10(str(tmp_path)).load(train)
    reference = torchvision.datasets.CIFAR10(str(tmp_path), train=train)
    assert np.array_equal(found.inputs.permute(0, 2, 3, 1).numpy(), reference.data)
    assert found.labels.tolist() == reference.targets
    assert list(CIFAR10.class_names) == reference.classes


# --- the full data set ---


@pytest.fixture(scope="module")
def full_cifar10() -> CIFAR10:
    folder = os.environ.get("LNSGD_DATA_DIR")
    data = CIFAR10(folder, standardize=True)
    if not folder or not data.raw.is_dir():
        pytest.skip("needs the full CIFAR-10: set LNSGD_DATA_DIR to a folder with cifar-10-batches-py or -bin")
    data.setup()
    return data


def test_the_full_set_has_its_sizes_and_classes(full_cifar10):
    for split, n in (("train", 50_000), ("test", 10_000)):
        data = full_cifar10.splits[split]
        assert data.inputs.shape == (n, 3, 32, 32)
        assert torch.bincount(data.labels).tolist() == [n // 10] * 10


def test_standardized_inputs_have_mean_zero_and_deviation_one(full_cifar10):
    """Of every channel, up to the four digits of the constants."""
    images = full_cifar10.splits["train"].inputs
    values = full_cifar10.transform(torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(-1, 3, 1, 1))
    for channel in range(3):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double() / images[:, channel].numel()
        inputs = values[:, channel].flatten().double()
        mean = (share * inputs).sum()
        assert mean.item() == pytest.approx(0, abs=3e-4)
        assert ((share * (inputs - mean).square()).sum()).sqrt().item() == pytest.approx(1, abs=3e-4)


def test_both_layouts_give_the_same_full_set(full_cifar10, tmp_path):
    test = full_cifar10.splits["test"]
    images, labels = test.inputs.numpy().reshape(-1, 3072), test.labels.tolist()
    for writer, name, read in ((write_python, "test", read_python), (write_binary, "test.bin", read_binary)):
        writer(tmp_path, "test", images, labels)
        pixels, classes = read(tmp_path / name, 10_000)
        assert np.array_equal(pixels, images)
        assert classes.tolist() == labels


# --- augmentation ---


def uint8(batches) -> torch.Tensor:
    return torch.cat([(255 * batch.inputs).round().to(torch.uint8) for batch in batches])


def test_each_training_image_is_cropped_by_its_key(tmp_path):
    data = small_cifar10(tmp_path, seed=5, batch_size=7)
    loader, n = data.train_dataloader(), 5 * PER_FILE
    loader.set_epoch(2)
    images = data.splits["train"].inputs[places(2 * n, n, n, "shuffle", 5)]
    for i, (found, image) in enumerate(zip(uint8(loader), images, strict=True)):
        row, column, mirrored = crop(2 * n + i, 4, 5)
        framed = torch.zeros(3, 40, 40, dtype=torch.uint8)
        framed[:, 4:36, 4:36] = image
        expected = framed[:, row : row + 32, column : column + 32]
        assert torch.equal(found, expected.flip(2) if mirrored else expected)


def test_only_training_is_augmented(tmp_path):
    data = small_cifar10(tmp_path)
    for split in ("train", "val", "test"):
        assert torch.equal(uint8(data.measurement_dataloader(split)), data.splits[split].inputs)
    assert torch.equal(uint8(data.val_dataloader()), data.splits["val"].inputs)
    assert torch.equal(uint8(data.test_dataloader()), data.splits["test"].inputs)


def test_augmentation_can_be_switched_off(tmp_path):
    data = small_cifar10(tmp_path, augment=False, batch_size=None)
    assert torch.equal(uint8(data.train_dataloader()), data.splits["train"].inputs)


def test_the_frame_is_black_also_in_standardized_images(tmp_path):
    """As in a pipeline that crops before it standardizes."""
    plain, standardized = (small_cifar10(tmp_path, standardize=standardize) for standardize in (False, True))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    for one, two in zip(plain.train_dataloader(), standardized.train_dataloader()):
        torch.testing.assert_close(two.inputs, (one.inputs - mean) / std, rtol=0, atol=1e-5)


def test_a_variant_is_augmented_by_its_own_seed(tmp_path):
    data = small_cifar10(tmp_path, seed=1)
    variant, fresh = data.variant(4), small_cifar10(tmp_path, seed=4)
    assert torch.equal(uint8(variant.train_dataloader()), uint8(fresh.train_dataloader()))
    assert not torch.equal(uint8(variant.train_dataloader()), uint8(data.train_dataloader()))


def test_replicas_refuse_augmentation(tmp_path):
    with pytest.raises(ValueError, match=r"CIFAR10 augments its training inputs.*--data.augment false"):
        ReplicatedData(CIFAR10(str(tmp_path)), [])
    ReplicatedData(CIFAR10(str(tmp_path), augment=False), [])


class Stop(pl.Callback):
    """Saves a checkpoint after a step and ends training there."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def trained(folder: Path, callbacks: list[pl.Callback], checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    """Weights and running statistics after three epochs of three steps, or where a callback stops."""
    with rng.forked(0, "init"):
        module = Classifier(
            ResNet20(width=2),
            label_noise=UniformNoise(0.2),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4),
        )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, callbacks=callbacks, **quiet)
    data = CIFAR10(str(folder), standardize=True, batch_size=25)
    trainer.fit(module, data, ckpt_path=checkpoint and str(checkpoint), weights_only=False)
    return module.net.state_dict()


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_residual_network_resumes_exactly(tmp_path, stop):
    write(tmp_path, "cifar-10-batches-bin")
    whole = trained(tmp_path, [])
    stopped = trained(tmp_path, [Stop(stop, tmp_path / "checkpoint")])
    assert not torch.equal(stopped["conv1.weight"], whole["conv1.weight"])
    resumed = trained(tmp_path, [], tmp_path / "checkpoint")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


# --- damage ---


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_last_byte(content: bytes) -> bytes:
    return content[:-1]


def emptied(content: bytes) -> bytes:
    return b""


def packed(content: bytes) -> bytes:
    return gzip.compress(content)


@pytest.mark.parametrize("damage", [cut, without_last_byte, emptied, packed])
@pytest.mark.parametrize("name", NAMES)
@LAYOUTS
def test_a_damaged_file_is_named(tmp_path, layout, name, damage):
    path = write(tmp_path, layout) / file_of(layout, name)
    path.write_bytes(damage(path.read_bytes()))
    data = CIFAR10(str(tmp_path))
    with pytest.raises(ValueError, match="damaged or of another data set: ") as error:
        data.setup()
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not data.splits


@pytest.mark.parametrize("number", [PER_FILE - 1, PER_FILE + 1])
@LAYOUTS
def test_a_file_with_another_number_of_images_is_named(tmp_path, layout, number):
    raw = write(tmp_path, layout)
    WRITERS[layout](raw, "data_batch_2", np.zeros((number, 3072), np.uint8), [0] * number)
    with pytest.raises(ValueError, match=f"{file_of(layout, 'data_batch_2')} is damaged.* expected; delete it"):
        CIFAR10(str(tmp_path)).setup()


@LAYOUTS
def test_a_label_out_of_range_is_refused(tmp_path, layout):
    raw = write(tmp_path, layout)
    WRITERS[layout](raw, "test_batch", content_of("test_batch")[0], [3] * (PER_FILE - 1) + [10])
    with pytest.raises(ValueError, match=r"test_batch.* is damaged.*: it has labels 3 to 10, 0 to 9 expected"):
        CIFAR10(str(tmp_path)).setup()


IMAGES, LABELS = content_of("test_batch")

STRANGE = {
    "no dictionary": pickle.dumps([1, 2]),
    "other keys": pickle.dumps({b"fine_labels": LABELS}),
    "images as a list": pickle.dumps({b"data": [0], b"labels": LABELS}),
    "labels as text": pickle.dumps({b"data": IMAGES, b"labels": ["cat"] * PER_FILE}, 4),
    "one label less": python2_pickle(IMAGES, LABELS[:-1]),
    "no labels": python2_pickle(IMAGES, []),
    "images of another size": python2_pickle(IMAGES[:, :784], LABELS),
    "images of floats": pickle.dumps({b"data": IMAGES.astype(np.float32), b"labels": LABELS}, 4),
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_pickle_of_other_content_is_refused(tmp_path, content):
    path = write(tmp_path, "cifar-10-batches-py") / "test_batch"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="test_batch is damaged or of another data set: ") as error:
        CIFAR10(str(tmp_path)).setup()
    assert "\n" not in str(error.value)


def test_a_pickle_cannot_run_anything(tmp_path):
    path = write(tmp_path, "cifar-10-batches-py") / "data_batch_1"
    path.write_bytes(f"cos\nmkdir\n(V{tmp_path / 'made'}\ntR.".encode())
    with pytest.raises(ValueError, match=r"data_batch_1 is damaged.*it asks for os\.mkdir"):
        CIFAR10(str(tmp_path)).setup()
    assert not (tmp_path / "made").exists()


# --- downloads ---


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Let torchvision download the packed small files from a local server; return a function that starts the server."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    raw = write(tmp_path / "mirror", "cifar-10-batches-py")
    archive = tmp_path / "mirror" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(raw, raw.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())

    def start(handler: type = QuietHandler) -> None:
        servers.append(serve(archive.parent, handler))
        url = f"http://127.0.0.1:{servers[-1].server_port}/{archive.name}"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_missing_files_are_downloaded_whole(mirror, tmp_path):
    mirror()
    data = CIFAR10(str(tmp_path / "new" / "data"))
    data.prepare_data()
    assert files_under(data.folder) == {f"cifar-10-batches-py/{name}" for name in NAMES}
    assert [path.name for path in data.folder.iterdir()] == ["cifar-10-batches-py"]
    for name in NAMES:
        assert (data.raw / name).read_bytes() == (tmp_path / "mirror" / data.raw.name / name).read_bytes()
    data.setup()
    assert len(data.splits["train"]) == 5 * PER_FILE


def test_existing_files_are_not_replaced_by_a_download(mirror, tmp_path):
    mirror()
    raw = tmp_path / "data" / "cifar-10-batches-py"
    raw.mkdir(parents=True)
    (raw / "data_batch_2").write_bytes(b"mine")
    CIFAR10(str(tmp_path / "data")).prepare_data()
    assert files_under(raw) == set(NAMES)
    assert (raw / "data_batch_2").read_bytes() == b"mine"


@LAYOUTS
def test_existing_files_are_not_downloaded(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)
    assert len(small_cifar10(tmp_path, layout).splits["train"]) == 5 * PER_FILE


class CuttingHandler(QuietHandler):
    """Closes the connection in the middle of the file."""

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2])


def dead_server(mirror, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/cifar-10-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)


def wrong_checksum(mirror, monkeypatch) -> None:
    mirror()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", "0" * 32)


def cut_connection(mirror, monkeypatch) -> None:
    mirror(CuttingHandler)


@pytest.mark.parametrize("failure", [dead_server, wrong_checksum, cut_connection])
def test_a_failed_download_names_the_remedy_and_leaves_nothing(mirror, monkeypatch, tmp_path, failure):
    failure(mirror, monkeypatch)
    data = CIFAR10(str(tmp_path / "data"))
    binary = data.folder / "cifar-10-batches-bin"
    write_binary(binary, "test_batch", *content_of("test_batch"))
    with pytest.raises(OSError, match=r"CIFAR10 is not in .* could not be downloaded") as error:
        data.prepare_data()
    message = str(error.value)
    assert f"{data.folder / 'cifar-10-batches-py'} (missing: {', '.join(NAMES)})" in message
    assert f"nor in {binary} (missing: {', '.join(f'{name}.bin' for name in PARTS['train'])})" in message
    for part in ("put the official files there", "data_dir", "LNSGD_DATA_DIR"):
        assert part in message
    assert "\n" not in message
    assert files_under(data.folder) == {"cifar-10-batches-bin/test_batch.bin"}
    assert not list(data.folder.glob(".*"))
