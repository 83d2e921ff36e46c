"""Pickles of arrays are read without executing what they ask for."""

import pickle

import numpy as np
import pytest

from lnsgd.untrusted.pickled_arrays import PickledArray, read_pickled

RAN = []


class Runs:
    """Calls a function if its pickle is read in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(tmp_path, content: bytes):
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(0, 3), (5,), (3, 4), (2, 3, 4)], ids=str)
def test_arrays_of_bytes_are_read(tmp_path, shape, order, protocol):
    array = np.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), order=order)
    content = read_pickled(write(tmp_path, pickle.dumps({"data": array, "labels": [1, 2]}, protocol)))
    assert content["labels"] == [1, 2]
    assert isinstance(content["data"], PickledArray)
    found = content["data"].to_numpy()
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("dangerous", "named"),
    [
        (Runs(RAN.append, 1), "getattr"),
        (Runs(eval, "RAN.append(1)"), "eval"),
        (Runs(exec, "raise SystemExit"), "exec"),
        (Runs(np.load, "file"), "numpy.load"),
        (np.float64(1), "numpy.*scalar|_codecs.encode"),
    ],
    ids=["method", "eval", "exec", "numpy-function", "numpy-number"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_names_are_refused_and_not_executed(tmp_path, dangerous, named, protocol):
    with pytest.raises(ValueError, match=f"asks for .*({named})"):
        read_pickled(write(tmp_path, pickle.dumps({"data": dangerous}, protocol)))
    assert not RAN


CALLS = {
    "REDUCE": b"cos\nsystem\n(U\x04truetR.",
    "INST": b"(U\x04trueios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nU\x04trueo.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n)\x81.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
}


@pytest.mark.parametrize("content", CALLS.values(), ids=CALLS)
def test_no_instruction_calls_a_function(tmp_path, content):
    with pytest.raises(ValueError, match=r"asks for os\.system"):
        read_pickled(write(tmp_path, content))


def test_state_of_the_replacement_class_cannot_be_set(tmp_path):
    """The instruction BUILD is applied to the class instead of an object."""
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        read_pickled(write(tmp_path, b"\x80\x02cnumpy\nndarray\n}U\x08to_numpyK\x01sb."))
    assert callable(PickledArray.to_numpy)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02}", b"\x80\x07.", b"."], ids=str)
def test_content_that_is_not_a_pickle_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        read_pickled(write(tmp_path, content))


def test_pickle_cut_short_is_refused(tmp_path):
    whole = pickle.dumps({"data": np.arange(6, dtype=np.uint8), "labels": [0, 300, 70_000]}, protocol=2)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="not a pickle of arrays"):
            read_pickled(write(tmp_path, whole[:length]))


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros(3, np.int8), np.array([1, None]), np.zeros(2, "S4")],
    ids=lambda array: array.dtype.str,
)
def test_arrays_of_other_types_are_refused(tmp_path, array):
    content = read_pickled(write(tmp_path, pickle.dumps(array, protocol=3)))
    with pytest.raises(ValueError, match="not of unsigned bytes"):
        content.to_numpy()


def test_array_with_too_few_bytes_is_refused(tmp_path):
    whole = pickle.dumps(np.arange(12, dtype=np.uint8).reshape(3, 4), protocol=3)
    assert whole.count(b"K\x03K\x04\x86") == 1
    content = read_pickled(write(tmp_path, whole.replace(b"K\x03K\x04\x86", b"K\x04K\x04\x86")))
    with pytest.raises(ValueError, match="cut short"):
        content.to_numpy()
