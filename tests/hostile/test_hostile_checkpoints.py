"""Hostile and damaged checkpoints are refused in one line, and no code from them is executed."""

import io
import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save

from lnsgd.cli import main
from lnsgd.runs.checkpoints import WholeCheckpointIO, load_run_checkpoint
from lnsgd.untrusted.checkpoint import load_checkpoint, load_safetensors, save_safetensors
from tests.hostile import hostile_files as hostile
from tests.hostile.guarded import guarded

STATE = {"net.weight": torch.arange(600.0).reshape(20, 30), "net.bias": torch.ones(3, dtype=torch.float64)}
RUN = {"state_dict": STATE, "epoch": 1, "global_step": 7, "loops": {"fit_loop": {"state_dict": {}}}}
GOOD = hostile.saved(RUN)
LEGACY = hostile.saved(RUN, _use_new_zipfile_serialization=False)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return a function that reads content, which must be refused and leave no files, and returns the message."""
    monkeypatch.chdir(tmp_path)

    def read(content: bytes, name: str = "x.ckpt") -> str:
        path = tmp_path / name
        path.write_bytes(content)
        load = load_safetensors if name.endswith("safetensors") else load_checkpoint
        with pytest.raises(ValueError) as raised, guarded():
            load(path)
        assert [file.name for file in tmp_path.iterdir()] == [name]
        (line,) = str(raised.value).splitlines()
        assert line.startswith(str(path))
        assert "weights_only=False" not in line
        return line

    return read


def same(found, expected=STATE):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("content", [GOOD, LEGACY], ids=["zip", "legacy"])
def test_file_of_torch_is_read(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with guarded():
        same(load_checkpoint(tmp_path / "x.ckpt")["state_dict"])


@pytest.mark.parametrize("name", hostile.BOMBS)
@pytest.mark.parametrize("packing", ["zip", "legacy", "plain"])
def test_pickle_that_calls_a_function_is_refused(refused, packing, name):
    bomb = hostile.pickle_of(hostile.BOMBS[name])
    if packing == "zip":
        line = refused(hostile.repacked(GOOD, {"data.pkl": bomb}))
    else:
        start = LEGACY[: LEGACY.index(b".") + 1] if packing == "legacy" else b""
        line = refused(start + bomb + LEGACY)
    assert "asks for" in line
    assert "is not executed" in line


def test_other_pickle_in_the_archive_is_not_read(tmp_path):
    bomb = hostile.pickle_of(hostile.BOMBS["os.system"])
    (tmp_path / "x.ckpt").write_bytes(hostile.repacked(GOOD, more={"archive/other.pkl": bomb}))
    with guarded():
        same(load_checkpoint(tmp_path / "x.ckpt")["state_dict"])


def test_second_main_pickle_is_refused(refused):
    assert "torch.save did not write" in refused(hostile.repacked(GOOD, more={"other/data.pkl": b"N."}))


def test_trainer_reads_checkpoints_without_code(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(GOOD)
    same(WholeCheckpointIO().load_checkpoint(path, weights_only=False)["state_dict"])
    path.write_bytes(hostile.repacked(GOOD, {"data.pkl": hostile.pickle_of(hostile.BOMBS["os.system"])}))
    with pytest.raises(ValueError, match="asks for code"), guarded():
        WholeCheckpointIO().load_checkpoint(path, weights_only=False)


TENSOR_OF_1000 = hostile.saved({"w": torch.ones(1000)})
PICKLE_OF_1000 = hostile.pickled_within(TENSOR_OF_1000)
THOUSAND = b"M\xe8\x03"


def bomb_of_zeros(entry: str, megabytes: int, change: bytes) -> bytes:
    """Make an archive that is a thousandth of its unpacked size."""
    file = io.BytesIO()
    old = zipfile.ZipFile(io.BytesIO(TENSOR_OF_1000))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name.endswith(entry):
                with new.open(name, "w", force_zip64=True) as part:
                    for _ in range(megabytes):
                        part.write(bytes(1 << 20))
            else:
                new.writestr(name, change if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


@pytest.mark.parametrize("entry", ["data/0", "data.pkl"])
def test_zip_bomb_is_not_unpacked(refused, entry):
    declared = PICKLE_OF_1000.replace(THOUSAND, b"J" + struct.pack("<i", 64 << 18))
    content = bomb_of_zeros(entry, 64, declared)
    assert len(content) < 1 << 20
    assert "compressed" in refused(content)


def size_declared(size: int) -> bytes:
    """Make an archive whose central directory claims that the weights are larger than they are."""
    end = TENSOR_OF_1000.rindex(b"PK\x01\x02", 0, TENSOR_OF_1000.index(b"data/0", TENSOR_OF_1000.index(b"PK\x01\x02")))
    content = bytearray(TENSOR_OF_1000)
    content[end + 20 : end + 28] = struct.pack("<II", size, size)
    return bytes(content)


LARGER = {
    "stride-0": (hostile.saved({"w": torch.ones(1).expand(10**12)}), "larger than its saved values"),
    "shape": (
        # The shape alone: the second of the two numbers in the pickle.
        hostile.repacked(
            TENSOR_OF_1000,
            {"data.pkl": PICKLE_OF_1000[::-1].replace(THOUSAND[::-1], b"\x05\xf5\xe1\x00J"[::1], 1)[::-1]},
        ),
        "not resizable",
    ),
    "storage": (
        hostile.repacked(TENSOR_OF_1000, {"data.pkl": PICKLE_OF_1000.replace(THOUSAND, b"J\xff\xff\xff\x7f")}),
        "does not match",
    ),
    "directory": (size_declared(0x7FFFFFFF), "larger than it is"),
    "key-of-a-tower": (
        hostile.repacked(GOOD, {"data.pkl": hostile.pickle_of(b"}", hostile.tower(60), b"K\x01s")}),
        "tuple with more than",
    ),
    "deep-key": (
        hostile.repacked(GOOD, {"data.pkl": hostile.pickle_of(b"}", b"K\x00" + b"\x85" * 10**6, b"K\x01s")}),
        "tuple with more than",
    ),
    "lists-of-lists": (
        hostile.repacked(
            GOOD,
            {
                "data.pkl": hostile.pickle_of(
                    b"]q\x00", b"".join(b"](h%cq\x00" % i + b"h%c" % i * 9 + b"eq%c" % (i + 1) for i in range(40))
                )
            },
        ),
        "without end",
    ),
}


@pytest.mark.parametrize("name", LARGER)
def test_content_that_grows_in_memory_is_refused(refused, name):
    content, reason = LARGER[name]
    assert reason in refused(content)


@pytest.mark.parametrize("content", [GOOD, LEGACY, TENSOR_OF_1000], ids=["zip", "legacy", "small"])
def test_checkpoint_cut_short_is_refused(refused, content):
    for length in [*range(0, len(content), 61), *range(len(content) - 70, len(content))]:
        assert "damaged" in refused(content[:length])


def test_flipped_bit_in_the_weights_is_found(tmp_path, refused):
    """Torch ignores the checksums of the archive, and lnsgd checks them."""
    at = GOOD.index(STATE["net.weight"].numpy().tobytes())
    for offset in (0, 1001, 2399):
        flipped = bytearray(GOOD)
        flipped[at + offset] ^= 4
        (tmp_path / "x.ckpt").write_bytes(flipped)
        torch.load(tmp_path / "x.ckpt", weights_only=True)
        assert "checksum" in refused(bytes(flipped))


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing"])
def test_path_that_is_not_a_file_is_refused(tmp_path, kind):
    import os

    path = tmp_path / "x.ckpt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # opening it would wait forever
    elif kind == "device":
        path.symlink_to("/dev/zero")
    for load in (load_checkpoint, load_safetensors):
        with (
            pytest.raises(ValueError, match="does not exist" if kind == "missing" else "not an ordinary file"),
            guarded(),
        ):
            load(path)


NOT_OF_RUNS = {
    "list": [1],
    "without-state": {"epoch": 1},
    "without-tensors": {"state_dict": {"w": 1}},
    "tensor": torch.ones(2),
}


@pytest.mark.parametrize("content", NOT_OF_RUNS.values(), ids=NOT_OF_RUNS)
def test_file_of_torch_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="not a checkpoint of a run"):
        load_run_checkpoint(path)


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS = {
    "length-absurd": hostile.safetensors("{}", length=1 << 62),
    "length-beyond": hostile.safetensors("{}", length=3),
    "length-of-a-gigabyte": hostile.safetensors("{}", bytes(64), length=1 << 30),
    "not-json": hostile.safetensors("{"),
    "not-utf8": hostile.safetensors(b"\xff\xff"),
    "array": hostile.safetensors("[]"),
    "deep": hostile.safetensors("[" * 100_000),
    "overlap": hostile.safetensors(json.dumps({"a": tensor(), "b": tensor(offsets=(4, 12))}), bytes(12)),
    "hole": hostile.safetensors(json.dumps({"a": tensor(offsets=(8, 16))}), bytes(16)),
    "rest": hostile.safetensors(json.dumps({"a": tensor()}), bytes(16)),
    "beyond": hostile.safetensors(json.dumps({"a": tensor(shape=(10**9,), offsets=(0, 4 * 10**9))}), bytes(8)),
    "backwards": hostile.safetensors(json.dumps({"a": tensor(offsets=(8, 0))}), bytes(8)),
    "negative-shape": hostile.safetensors(json.dumps({"a": tensor(shape=(-2,))}), bytes(8)),
    "shape-overflow": hostile.safetensors(json.dumps({"a": tensor(shape=(1 << 62, 1 << 62, 4))}), bytes(8)),
    "shape-and-size": hostile.safetensors(json.dumps({"a": tensor(shape=(3,))}), bytes(8)),
    "dtype-nan": hostile.safetensors(json.dumps({"a": tensor(dtype="NaN")}), bytes(8)),
    "dtype-number": hostile.safetensors(json.dumps({"a": tensor(dtype=3)}), bytes(8)),
    "dtype-f4": hostile.safetensors(json.dumps({"a": tensor(dtype="F4", offsets=(0, 1))}), bytes(1)),
    "twice": hostile.safetensors('{"a":%s,"a":%s}' % ((json.dumps(tensor()),) * 2), bytes(8)),
}


@pytest.mark.parametrize("name", [name for name in HEADERS if name not in ("twice", "dtype-f4")])
def test_false_safetensors_header_is_refused(refused, name):
    assert "damaged or not a safetensors file" in refused(HEADERS[name], "x.safetensors")


def test_safetensors_file_cut_short_is_refused(refused):
    content = save({name: value.clone() for name, value in STATE.items()})
    for length in [*range(0, 200), *range(200, len(content), 97)]:
        refused(content[:length], "x.safetensors")


def test_names_send_no_commands_to_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"\x1b[2Jevil\r\n": 1}, "x\x1b[31m.pt")
    with pytest.raises(SystemExit) as ended:
        main(["analyze", "x\x1b[31m.pt", "--model", "MLP", "--model.widths", "[2,2]", "--data", "MNIST"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "evil" in line


def test_flipped_bit_in_safetensors_of_lnsgd_is_found(tmp_path, refused):
    """The format itself has no checksum."""
    save_safetensors(STATE, tmp_path / "x.safetensors")
    same(load_safetensors(tmp_path / "x.safetensors"))
    content = (tmp_path / "x.safetensors").read_bytes()
    start = len(content) - sum(value.nbytes for value in STATE.values())
    for at in range(start, len(content), 101):
        flipped = bytearray(content)
        flipped[at] ^= 16
        assert "checksum" in refused(bytes(flipped), "x.safetensors")


def test_tensor_named_like_a_path_writes_no_file(tmp_path):
    path = tmp_path / "in" / "x.ckpt"
    path.parent.mkdir()
    torch.save({"../../evil": torch.ones(2), "/evil": torch.ones(1)}, path)
    with guarded():
        assert set(load_checkpoint(path)) == {"../../evil", "/evil"}
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "x.ckpt"]
