"""MNIST: the sample, the official files, splits, downloads and damage."""

import gzip
import hashlib
import socket
import struct
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest
import torch
import torchvision.datasets
from tolerances import STANDARD_ERRORS

from lnsgd.data import MNIST, FashionMNIST, LabelledTensors
from lnsgd.data.mnist import IdxImageData
from tests.local_server import QuietHandler, serve

SPLITS = ("train", "val", "test")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Sizes of the small data sets in the official layout that some tests write.
SMALL = {"train": 30, "t10k": 12}

# Digits 0 to 9 among the 60,000 official training images.
OFFICIAL_COUNTS = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])


def sample(**options) -> MNIST:
    data = MNIST(source="sample", **options)
    data.setup()
    return data


@pytest.fixture(scope="module")
def whole_sample() -> MNIST:
    return sample()


def examples(data: LabelledTensors) -> list[tuple[bytes, int]]:
    """Images and labels as something that can be counted and compared."""
    return [(image.tobytes(), label) for image, label in zip(data.inputs.numpy(), data.labels.tolist())]


def images(data: LabelledTensors) -> set[bytes]:
    return {image for image, _ in examples(data)}


# --- the sample ---


def test_sample_has_its_sizes_and_types(whole_sample):
    for split, n in (("train", 10_000), ("test", 2_000)):
        data = whole_sample.splits[split]
        assert data.inputs.shape == (n, 1, 28, 28)
        assert data.inputs.dtype == torch.uint8
        assert data.labels.shape == (n,)
        assert data.labels.dtype == torch.int64


def test_images_of_the_sample_are_distinct(whole_sample):
    train, test = images(whole_sample.splits["train"]), images(whole_sample.splits["test"])
    assert (len(train), len(test)) == (10_000, 2_000)
    assert not train & test


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_of_the_sample_are_balanced_like_mnist(whole_sample, split):
    labels = whole_sample.splits[split].labels
    expected = OFFICIAL_COUNTS / OFFICIAL_COUNTS.sum()
    error = (expected * (1 - expected) / len(labels)).sqrt()
    found = torch.bincount(labels, minlength=10) / len(labels)
    assert ((found - expected).abs() < STANDARD_ERRORS * error).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_example_of_the_sample_is_in_mnist(whole_sample, full_data, split):
    official = MNIST(str(full_data)).load(train=split == "train")
    assert set(examples(whole_sample.splits[split])) <= set(examples(official))


def test_sample_needs_no_files(tmp_path):
    data = MNIST(str(tmp_path / "nowhere"), source="sample")
    data.prepare_data()
    data.setup()
    assert not (tmp_path / "nowhere").exists()


# --- inputs ---


def test_inputs_are_pixels_in_the_unit_interval(whole_sample):
    raw, start = whole_sample.splits["val"], 0
    for inputs, labels, _ in whole_sample.val_dataloader():
        part = slice(start, start + len(labels))
        assert torch.equal((255 * inputs).round().to(torch.uint8), raw.inputs[part])
        assert torch.equal(labels, raw.labels[part])
        assert inputs.dtype == torch.get_default_dtype()
        assert (inputs.min(), inputs.max()) == (0, 1)
        start += len(labels)
    assert start == len(raw)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_standardized_inputs_have_mean_zero_and_deviation_one(kind, full_data):
    data = kind(str(full_data), standardize=True)
    if not data.raw.exists():
        pytest.skip(f"needs the full {kind.__name__} in LNSGD_DATA_DIR")
    pixels = torch.bincount(data.load(train=True).inputs.flatten(), minlength=256).double()
    inputs = data.transform(torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)).flatten().double()
    mean = (pixels * inputs).sum() / pixels.sum()
    deviation = ((pixels * (inputs - mean).square()).sum() / pixels.sum()).sqrt()
    # The constants have four digits: 0.00005/0.3 of a deviation.
    assert mean.item() == pytest.approx(0, abs=2e-4)
    assert deviation.item() == pytest.approx(1, abs=2e-4)


def test_standardized_inputs_are_shifted_and_scaled_pixels(whole_sample):
    raw = whole_sample.splits["train"].inputs[:50]
    standardized = sample(standardize=True).transform(raw).double()
    torch.testing.assert_close(standardized, (raw.double() / 255 - 0.1307) / 0.3081, rtol=0, atol=1e-6)
    assert torch.equal(raw, whole_sample.splits["train"].inputs[:50])  # the images themselves stay


# --- splits ---


@pytest.mark.parametrize("classes", [(3, 8), (8, 3), (0, 5, 9)], ids=str)
def test_classes_are_kept_in_every_split(whole_sample, classes):
    data = sample(classes=classes)
    assert data.num_classes == len(classes)
    for split in SPLITS:
        expected = [(x, classes.index(y)) for x, y in examples(whole_sample.splits[split]) if y in classes]
        assert examples(data.splits[split]) == expected


def test_without_hold_out_validation_is_the_test_set(whole_sample):
    assert whole_sample.num_classes == 10
    assert examples(whole_sample.splits["val"]) == examples(whole_sample.splits["test"])


@pytest.mark.parametrize("val_size", [1, 500, 9_999])
def test_hold_out_divides_the_training_set(whole_sample, val_size):
    data = sample(val_size=val_size)
    train, val = examples(data.splits["train"]), examples(data.splits["val"])
    assert (len(train), len(val)) == (10_000 - val_size, val_size)
    assert set(train).isdisjoint(val)
    assert sorted(train + val) == sorted(examples(whole_sample.splits["train"]))
    assert examples(data.splits["test"]) == examples(whole_sample.splits["test"])


def test_hold_out_is_random_and_keyed_by_the_seed(whole_sample):
    first, again, other = (images(sample(val_size=500, seed=seed).splits["val"]) for seed in (0, 0, 1))
    assert first == again
    assert len(first & other) < 100  # 25 are expected
    assert len(first & images(whole_sample.splits["train"][torch.arange(500)])) < 100


def test_subset_is_drawn_after_the_hold_out():
    small, large, whole = (sample(val_size=500, subset=size) for size in (100, 3_000, None))
    assert len(small.splits["train"]) == 100
    train = [set(examples(data.splits["train"])) for data in (small, large, whole)]
    assert train[0] < train[1] < train[2]
    assert examples(small.splits["val"]) == examples(whole.splits["val"])


def test_only_training_labels_are_corrupted(whole_sample):
    options = {"val_size": 500, "subset": 4_000}
    clean, corrupted = sample(**options), sample(**options, corrupted_fraction=0.3)
    assert torch.equal(corrupted.splits["train"].inputs, clean.splits["train"].inputs)
    changed = (corrupted.splits["train"].labels != clean.splits["train"].labels).sum().item()
    drawn, rate = 1_200, 0.9
    assert abs(changed - drawn * rate) < STANDARD_ERRORS * sqrt(drawn * rate * (1 - rate))
    for split in ("val", "test"):
        assert examples(corrupted.splits[split]) == examples(clean.splits[split])


def test_corrupted_labels_are_among_the_kept_classes():
    labels = sample(classes=(3, 8), corrupted_fraction=1.0).splits["train"].labels
    assert set(labels.tolist()) == {0, 1}


def test_the_training_loader_gives_the_training_split():
    data = sample(subset=105, batch_size=20, corrupted_fraction=0.5)
    batches = list(data.train_dataloader())
    assert [len(batch.labels) for batch in batches] == [20] * 5 + [5]
    given = LabelledTensors(torch.cat([batch.inputs for batch in batches]), torch.cat([b.labels for b in batches]))
    given = LabelledTensors((255 * given.inputs).round().to(torch.uint8), given.labels)
    assert sorted(examples(given)) == sorted(examples(data.splits["train"]))
    assert examples(given) != examples(data.splits["train"])  # shuffled


def test_replacement_repeats_examples():
    labels_and_images = [
        (image.numpy().tobytes(), label)
        for batch in sample(subset=105, batch_size=20, replacement=True).train_dataloader()
        for image, label in zip(batch.inputs, batch.labels.tolist())
    ]
    assert len(labels_and_images) == 105
    assert len(set(labels_and_images)) < 90  # 105 (1 − 1/e) = 66 are expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"eval_batch_size": 0}, "eval_batch_size = 0"),
        ({"val_size": -1}, "val_size = -1; give 0 to 9999"),
        ({"val_size": 10_000}, "val_size = 10000; give 0 to 9999"),
        ({"subset": 0}, "subset = 0; give 1 to 10000"),
        ({"subset": 9_501, "val_size": 500}, "subset = 9501; give 1 to 9500"),
        ({"corrupted_fraction": 1.5}, "corrupted_fraction = 1.5"),
        ({"classes": [1]}, r"classes = \[1\]"),
        ({"classes": [1, 10]}, r"classes = \[1, 10\]"),
    ],
    ids=lambda value: None if isinstance(value, str) else ",".join(value),
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        sample(**options)


def test_refuses_an_unknown_source():
    with pytest.raises(ValueError, match="source = 'small'; choose full or sample"):
        MNIST(source="small")


# --- what is measured on ---


def measured(data: MNIST, *args) -> list[tuple[bytes, int]]:
    return [
        (image.numpy().tobytes(), label)
        for batch in data.measurement_dataloader(*args)
        for image, label in zip(batch.inputs, batch.labels.tolist())
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_measurements_are_on_a_fixed_subset(split):
    first, again, other = sample(seed=3), sample(seed=3, batch_size=7, eval_batch_size=64), sample(seed=4)
    subset = measured(first, split, 100)
    assert len(set(subset)) == 100
    assert subset == measured(first, split, 100) == measured(again, split, 100)
    assert set(subset) < set(measured(first, split))
    assert set(subset) != set(measured(other, split, 100))


@pytest.mark.parametrize("size", [None, 2_000, 5_000])
def test_measurements_are_on_a_whole_split_that_is_small(whole_sample, size):
    raw = whole_sample.splits["test"]
    expected = [
        (image.tobytes(), label) for image, label in zip((raw.inputs.float() / 255).numpy(), raw.labels.tolist())
    ]
    assert measured(whole_sample, "test", size) == expected


def test_measurements_use_the_corrupted_labels():
    data = sample(subset=300, corrupted_fraction=1.0)
    assert [label for _, label in measured(data, "train")] == data.splits["train"].labels.tolist()


# --- the official files ---


def write_idx(path: Path, values: torch.Tensor) -> None:
    """The format as its inventor describes it: a magic number, the dimensions, the bytes."""
    header = struct.pack(f">{1 + values.dim()}i", 2048 + values.dim(), *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.numpy().tobytes())


@pytest.fixture
def small_files(tmp_path, monkeypatch) -> Path:
    """A folder with a small data set in the official format."""
    monkeypatch.setattr(IdxImageData, "sizes", SMALL)
    generator = torch.Generator().manual_seed(0)
    for part, n in SMALL.items():
        pixels = torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(tmp_path / "official" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / "official" / f"{part}-labels-idx1-ubyte", torch.arange(n, dtype=torch.uint8) % 10)
    return tmp_path / "official"


@pytest.fixture
def small_mnist(small_files, tmp_path) -> MNIST:
    """MNIST whose folder holds the small files."""
    data = MNIST(str(tmp_path / "data"))
    data.raw.parent.mkdir(parents=True)
    small_files.rename(data.raw)
    return data


def test_data_dir_precedes_environment_and_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("LNSGD_DATA_DIR", raising=False)
    assert MNIST().raw == Path("/home/ada/.cache/lnsgd/MNIST/raw")
    monkeypatch.setenv("LNSGD_DATA_DIR", "~/sets")
    assert MNIST().raw == Path("/home/ada/sets/MNIST/raw")
    assert MNIST("here").raw == Path("here/MNIST/raw")
    assert FashionMNIST("~/there").raw == Path("/home/ada/there/FashionMNIST/raw")


@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_official_files_are_read_as_torchvision_reads_them(full_data, train):
    data, reference = MNIST(str(full_data)).load(train), torchvision.datasets.MNIST(str(full_data), train=train)
    assert torch.equal(data.inputs, reference.data.unsqueeze(1))
    assert torch.equal(data.labels, reference.targets)


def test_existing_files_are_not_downloaded(small_mnist, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "MNIST", None)
    small_mnist.prepare_data()
    small_mnist.setup()
    assert [len(small_mnist.splits[split]) for split in SPLITS] == [30, 12, 12]
    assert small_mnist.splits["test"].labels.tolist() == [*range(10), 0, 1]


def cut(content: bytes) -> bytes:
    return content[:-1]


def with_one_byte_more(content: bytes) -> bytes:
    return content + b"\0"


def with_wrong_magic(content: bytes) -> bytes:
    return content[:2] + b"\x0d" + content[3:]  # floats in place of bytes


def with_other_dimensions(content: bytes) -> bytes:
    return content[:4] + struct.pack(">i", 29) + content[8:]


def emptied(content: bytes) -> bytes:
    return b""


def still_packed(content: bytes) -> bytes:
    return gzip.compress(content)


@pytest.mark.parametrize(
    "damage", [cut, with_one_byte_more, with_wrong_magic, with_other_dimensions, emptied, still_packed]
)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(small_mnist, name, damage: Callable[[bytes], bytes]):
    path = small_mnist.raw / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="damaged or of another data set") as error:
        small_mnist.setup()
    assert str(path) in str(error.value)
    assert not small_mnist.splits


@pytest.mark.parametrize("part", SMALL)
def test_a_label_out_of_range_is_refused(small_mnist, part):
    path = small_mnist.raw / f"{part}-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="damaged or of another data set: it has a label 10") as error:
        small_mnist.setup()
    assert str(path) in str(error.value)


# --- downloads ---


class CuttingHandler(QuietHandler):
    """Closes the connection in the middle of the second file."""

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2] if "train-labels" in self.path else content)


@pytest.fixture
def mirror(small_files, monkeypatch):
    """Let torchvision download the packed small files from a local server; return a function that starts the server."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    resources = []
    for name in FILES:
        packed = gzip.compress((small_files / name).read_bytes())
        (small_files / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))

    def start(kind: type[IdxImageData] = MNIST, handler: type = QuietHandler) -> None:
        servers.append(serve(small_files, handler))
        source = getattr(torchvision.datasets, kind.__name__)
        monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{servers[-1].server_port}/"])
        monkeypatch.setattr(source, "resources", resources)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_missing_files_are_downloaded_whole(mirror, small_files, tmp_path, kind):
    mirror(kind)
    data = kind(str(tmp_path / "new" / "data"))
    data.prepare_data()
    assert files_under(data.folder) == {f"{kind.__name__}/raw/{name}" for name in FILES}
    assert [path.name for path in data.folder.iterdir()] == [kind.__name__]
    for name in FILES:
        assert (data.raw / name).read_bytes() == (small_files / name).read_bytes()
    data.setup()
    assert len(data.splits["train"]) == SMALL["train"]


def test_existing_files_are_not_replaced_by_a_download(mirror, tmp_path):
    mirror()
    data = MNIST(str(tmp_path / "data"))
    data.raw.mkdir(parents=True)
    (data.raw / FILES[1]).write_bytes(b"mine")
    data.prepare_data()
    assert files_under(data.raw) == set(FILES)
    assert (data.raw / FILES[1]).read_bytes() == b"mine"


def dead_server(mirror, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


def wrong_checksum(mirror, monkeypatch) -> None:
    mirror()
    first, second, *rest = torchvision.datasets.MNIST.resources
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [first, (second[0], "0" * 32), *rest])


def missing_on_the_server(mirror, monkeypatch) -> None:
    mirror()
    others = torchvision.datasets.MNIST.resources[:-1]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [*others, ("t10k-labels-gone.gz", "0" * 32)])


def cut_connection(mirror, monkeypatch) -> None:
    mirror(handler=CuttingHandler)


@pytest.mark.parametrize("failure", [dead_server, wrong_checksum, missing_on_the_server, cut_connection])
def test_a_failed_download_names_the_remedy_and_leaves_nothing(mirror, monkeypatch, tmp_path, failure):
    failure(mirror, monkeypatch)
    data = MNIST(str(tmp_path / "data"))
    with pytest.raises(OSError, match="could not be downloaded") as error:
        data.prepare_data()
    message = str(error.value)
    for part in (*FILES, str(data.raw), "put the official files there", "data_dir", "LNSGD_DATA_DIR"):
        assert part in message
    assert "\n" not in message
    assert not files_under(data.folder)
    assert not list(data.folder.glob(".*"))


def test_a_failed_download_names_only_the_missing_files(mirror, monkeypatch, tmp_path):
    dead_server(mirror, monkeypatch)
    data = MNIST(str(tmp_path / "data"))
    data.raw.mkdir(parents=True)
    (data.raw / FILES[0]).write_bytes(b"mine")
    with pytest.raises(OSError, match="could not be downloaded") as error:
        data.prepare_data()
    assert f"(missing: {', '.join(FILES[1:])})" in str(error.value)
    assert files_under(data.folder) == {f"MNIST/raw/{FILES[0]}"}


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    data = MNIST(str(tmp_path / "file" / "data"))
    with pytest.raises(OSError, match="could not be downloaded") as error:
        data.prepare_data()
    assert str(data.raw) in str(error.value)
