"""Data given as tensors: splits, classes, subsets, and bad input."""

import pytest
import torch

from lnsgd.data import InMemory
from lnsgd.data.tensors import LabelledTensors, draw_subset

N = 23


def regression(n: int = N, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Example i has the input i and the target 100 + i."""
    inputs = torch.arange(start, start + n).float().view(n, 1)
    return inputs, 100 + inputs


def classes(n: int = N, number: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n).float().view(n, 1), torch.arange(n) % number


def ready(*args, **options) -> InMemory:
    data = InMemory(*args, **options)
    data.setup()
    return data


def ids(data: LabelledTensors) -> list[int]:
    return data.inputs[:, 0].int().tolist()


TRAIN, VAL, TEST = range(N), range(30, 35), range(40, 47)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (TRAIN, TRAIN, TRAIN)),
        ({"val": regression(5, 30)}, (TRAIN, VAL, VAL)),
        ({"test": regression(7, 40)}, (TRAIN, TRAIN, TEST)),
        ({"val": regression(5, 30), "test": regression(7, 40)}, (TRAIN, VAL, TEST)),
    ],
    ids=["training-set-only", "val", "test", "val-and-test"],
)
def test_splits_are_the_given_tensors(options, expected):
    data = ready(regression(), **options)
    for split, examples in zip(("train", "val", "test"), expected):
        assert ids(data.splits[split]) == list(examples)
        assert data.splits[split].labels[:, 0].tolist() == [100 + i for i in examples]


@pytest.mark.parametrize("make", [regression, classes])
def test_nothing_is_copied_or_changed(make):
    inputs, labels = make()
    data = ready((inputs, labels), subset=5)
    (batch,) = data.val_dataloader()
    assert data.splits["train"].pool.data_ptr() == data.splits["val"].pool.data_ptr() == inputs.data_ptr()
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.labels, labels)
    assert (batch.inputs.dtype, batch.labels.dtype) == (inputs.dtype, labels.dtype)


@pytest.mark.parametrize(
    ("train", "given", "expected"),
    [
        (regression(), None, None),
        (classes(number=3), None, 3),
        (classes(number=1), None, 2),
        (classes(number=3), 10, 10),
    ],
    ids=["real", "three", "one-at-least-two", "given"],
)
def test_number_of_classes(train, given, expected):
    assert InMemory(train, num_classes=given).num_classes == expected


def test_a_batch_is_the_whole_training_set_by_default():
    data = ready(regression(), subset=7)
    for _ in range(2):
        (batch,) = data.train_dataloader()
        assert batch.inputs[:, 0].int().tolist() == ids(data.splits["train"])


def test_a_subset_is_keyed_and_only_of_the_training_set():
    data = ready(regression(), subset=7, seed=4)
    assert ids(data.splits["train"]) == ids(draw_subset(LabelledTensors(*regression()), 7, seed=4))
    assert ids(data.splits["train"]) != ids(ready(regression(), subset=7, seed=5).splits["train"])
    assert ids(data.splits["val"]) == ids(data.splits["test"]) == list(TRAIN)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_refuses_different_numbers_of_inputs_and_labels(split):
    inputs, labels = regression()
    given = {"train": regression(), split: (inputs, labels[:-1])}
    with pytest.raises(ValueError, match=f"InMemory: {split} has 23 inputs, but 22 labels"):
        InMemory(**given)


@pytest.mark.parametrize("size", [0, N + 1])
def test_refuses_a_subset_out_of_range(size):
    with pytest.raises(ValueError, match=f"subset = {size}; give 1 to {N}"):
        ready(regression(), subset=size)
