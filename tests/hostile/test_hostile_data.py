"""Damaged, huge or hostile data sets are named and refused, and no code from them is executed."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lnsgd.cli import main
from lnsgd.data import CIFAR10
from lnsgd.data.cifar10 import PIXELS, read_binary, read_python
from lnsgd.data.mnist import read_idx
from tests.data.cifar_files import python2_pickle
from tests.hostile import hostile_files as hostile
from tests.hostile.guarded import guarded
from tests.local_server import serve

IMAGES = np.arange(4 * PIXELS, dtype=np.uint64).astype(np.uint8).reshape(4, PIXELS)
PYTHON = python2_pickle(IMAGES, [0, 1, 2, 9])


def idx(*shape: int, content: bytes) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", 8 * 256 + len(shape), *shape) + content


READERS = {
    "idx": (lambda path: read_idx(path, (4, 28, 28)), idx(4, 28, 28, content=bytes(4 * 784))),
    "binary": (lambda path: read_binary(path, 4), bytes(4 * (1 + PIXELS))),
    "python": (lambda path: read_python(path, 4), PYTHON),
}


@pytest.mark.parametrize("kind", READERS)
def test_file_cut_short_is_refused(tmp_path, kind):
    read, content = READERS[kind]
    path = tmp_path / "x"
    path.write_bytes(content)
    read(path)
    for length in [*range(0, len(content), 331), *range(len(content) - 20, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged or of another data set"), guarded():
            read(path)


@pytest.mark.parametrize("kind", READERS)
def test_file_of_a_terabyte_is_not_read(tmp_path, kind):
    read, content = READERS[kind]
    path = tmp_path / "x"
    path.write_bytes(content)
    os.truncate(path, 1 << 40)  # a sparse file
    with pytest.raises(ValueError, match=r"expected|are allowed") as raised, guarded():
        read(path)
    assert "1,099,511,627,776 bytes" in str(raised.value)


@pytest.mark.parametrize("kind", READERS)
def test_pipe_is_refused(tmp_path, kind):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(ValueError, match="not an ordinary file"), guarded():
        READERS[kind][0](tmp_path / "x")


def test_flipped_bits_of_an_idx_header_are_found(tmp_path):
    read, content = READERS["idx"]
    for bit in range(16 * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x").write_bytes(flipped)
        with pytest.raises(ValueError, match="its header is not that of 4 × 28 × 28 bytes"), guarded():
            read(tmp_path / "x")


SIZES = {
    "absurd": idx(2**32 - 1, 2**32 - 1, 2**32 - 1, content=b""),
    "absurd-with-images": idx(2**32 - 1, 28, 28, content=bytes(4 * 784)),
    "negative": idx(2**31, 28, 28, content=bytes(4 * 784)),
    "of-labels": idx(4, content=bytes(4)),
}


@pytest.mark.parametrize("content", SIZES.values(), ids=SIZES)
def test_false_sizes_in_an_idx_header_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or of another data set"), guarded():
        read_idx(tmp_path / "x", (4, 28, 28))


@pytest.mark.parametrize("name", [name for name in hostile.BOMBS if name != "nested"])
def test_batch_with_code_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(hostile.pickle_of(b"}", hostile.text("data"), hostile.BOMBS[name], b"s"))
    with pytest.raises(ValueError, match="it asks for"), guarded():
        read_python(tmp_path / "x", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


GROWING = {
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",  # an array of 2³¹ entries in CPython's reader
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b".",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 45) + b".",
    "key-of-a-tower": hostile.pickle_of(b"}", hostile.tower(60), b"K\x01s"),
    "deep-key": hostile.pickle_of(b"}K\x00", b"\x85" * 30_000, b"K\x01s"),
    "marks": b"\x80\x02" + b"(" * 20_000,
}


@pytest.mark.parametrize("content", GROWING.values(), ids=GROWING)
def test_batch_that_grows_in_memory_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or of another data set"), guarded():
        read_python(tmp_path / "x", 4)


WRONG = {
    "label-10": python2_pickle(IMAGES, [0, 1, 2, 10]),
    "label-huge": python2_pickle(IMAGES, [0, 1, 2, 2**31 - 1]),
    "labels-too-few": python2_pickle(IMAGES, [0, 1, 2]),
    "labels-negative": pickle.dumps({b"data": IMAGES, b"labels": [0, 1, 2, -1]}, 4),
    "labels-beyond": pickle.dumps({b"data": IMAGES, b"labels": [0, 1, 2, 1 << 80]}, 4),
    "labels-text": pickle.dumps({b"data": IMAGES, b"labels": ["0"] * 4}, 4),
    "no-labels": pickle.dumps({b"data": IMAGES}, 4),
    "list": pickle.dumps([1, 2], 4),
    "floats": pickle.dumps({b"data": IMAGES.astype(float), b"labels": [0] * 4}, 4),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_batch_with_other_content_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(CIFAR10, "examples_per_file", 4)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="test_batch is damaged or of another data set"), guarded():
        CIFAR10(str(tmp_path)).load(train=False)


# -- downloads


def archive(*members: tuple[str, bytes | str]) -> bytes:
    """Make a tar of files, given as bytes, and of links, given as text."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for name, content in members:
            about = tarfile.TarInfo(name)
            if isinstance(content, str):
                about.type, about.linkname = tarfile.SYMTYPE, content
                packed.addfile(about)
            else:
                about.size = len(content)
                packed.addfile(about, io.BytesIO(content))
    return file.getvalue()


NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
BATCHES = [(f"cifar-10-batches-py/{name}", b"x") for name in NAMES]
WITH_MORE = {
    "above": archive(*BATCHES, ("../../../evil", b"evil")),
    "link": archive(*BATCHES, ("cifar-10-batches-py/link", "../../../../outside")),
    "through-a-link": archive(("out", "../../.."), ("out/evil", b"evil"), *BATCHES),
}
WITH_LESS = {
    "cut-off": archive(*BATCHES)[:-400],
    "no-archive": b"<html>not found</html>",
    "one-missing": archive(*BATCHES[1:]),
    "one-is-a-link": archive(*BATCHES[1:], (BATCHES[0][0], "../../../../outside")),
    "one-is-a-folder": archive(*BATCHES[1:], (f"{BATCHES[0][0]}/x", b"x")),
}
ARCHIVES = {**WITH_MORE, **WITH_LESS}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Replace the official server; return a function that sets its archive and whether its checksum is trusted."""
    from torchvision import datasets

    monkeypatch.chdir(tmp_path)
    served = tmp_path / "served"
    served.mkdir()
    server = serve(served)

    def give(content: bytes, trusted: bool) -> None:
        (served / datasets.CIFAR10.filename).write_bytes(content)
        monkeypatch.setattr(
            datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{datasets.CIFAR10.filename}"
        )
        if trusted:
            monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())

    yield give
    server.shutdown()


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "served" not in path.parts}


@pytest.mark.parametrize(
    ("name", "trusted"), [*((name, False) for name in ARCHIVES), *((name, True) for name in WITH_LESS)]
)
def test_archive_with_another_checksum_is_refused(tmp_path, mirror, name, trusted):
    mirror(ARCHIVES[name], trusted)
    before = files(tmp_path)
    with pytest.raises(OSError, match=r"CIFAR10 is not in .* and could not be downloaded; put the official") as raised:
        CIFAR10(str(tmp_path / "data")).prepare_data()
    assert len(str(raised.value).splitlines()) == 1
    assert files(tmp_path) - before <= {"data"}


@pytest.mark.parametrize("name", WITH_MORE)
def test_other_members_of_an_archive_are_not_unpacked(tmp_path, mirror, name):
    (tmp_path / "outside").write_bytes(b"secret")
    before = files(tmp_path)
    mirror(WITH_MORE[name], trusted=True)
    CIFAR10(str(tmp_path / "data")).prepare_data()
    assert files(tmp_path) - before == {
        "data",
        "data/cifar-10-batches-py",
        *(f"data/cifar-10-batches-py/{name}" for name in NAMES),
    }


def test_archive_with_the_right_checksum_is_unpacked(tmp_path, mirror):
    elsewhere = tmp_path / "elsewhere"
    mirror(archive(*BATCHES, (f"{elsewhere}/evil", b"evil")), trusted=True)
    CIFAR10(str(tmp_path / "data")).prepare_data()
    assert not elsewhere.exists()
    assert sorted(path.name for path in (tmp_path / "data" / "cifar-10-batches-py").iterdir()) == sorted(NAMES)


def test_command_reports_a_bad_archive_in_one_line(tmp_path, mirror, capsys):
    mirror(archive(*BATCHES), trusted=False)
    config = str(Path(__file__).parents[2] / "configs" / "cifar10_resnet20.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", config, "--data.data_dir", "data", "--trainer.accelerator", "cpu"])
    assert ended.value.code == 2
    assert "could not be downloaded" in capsys.readouterr().err.splitlines()[-1]
    assert "runs" not in files(tmp_path)
