"""The base of the DataModules: variants of other seeds, batches, bad input."""

from itertools import chain

import pytest
import torch

from lnsgd.data import MNIST, InMemory, LabelledTensors, TensorData
from tests.reference.streams import places

SPLITS = ("train", "val", "test")
N = 50


def in_memory(**options) -> InMemory:
    """Example i has the input i and the target 100 + i."""
    inputs = torch.arange(N).float().view(N, 1)
    return InMemory((inputs, 100 + inputs), **options)


def mnist(**options) -> MNIST:
    return MNIST(source="sample", **options)


def corrupted_mnist(**options) -> MNIST:
    return mnist(val_size=500, corrupted_fraction=0.3, classes=(3, 8, 1), **options)


def ready(data: TensorData) -> TensorData:
    data.setup()
    return data


def assert_same_data(one: LabelledTensors, two: LabelledTensors) -> None:
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.labels, two.labels)


def assert_same_batches(one, two) -> None:
    one, two = list(one), list(two)
    assert len(one) == len(two)
    for ours, theirs in zip(one, two):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.labels, theirs.labels)


# --- variants ---

KINDS = pytest.mark.parametrize("make", [in_memory, mnist, corrupted_mnist])


@KINDS
@pytest.mark.parametrize("is_set_up", [True, False], ids=["set-up", "new"])
@pytest.mark.parametrize("subset", [None, 17], ids=["its-subset", "another-subset"])
def test_a_variant_equals_a_new_data_module_of_its_seed(make, subset, is_set_up):
    options = {"batch_size": 8, "replacement": make is in_memory}
    base = make(subset=20, seed=1, **options)
    variant = (ready(base) if is_set_up else base).variant(3, subset)
    fresh = ready(make(subset=subset or 20, seed=3, **options))
    for split in SPLITS:
        assert_same_data(variant.splits[split], fresh.splits[split])
    assert (type(variant), variant.seed, variant.subset) == (type(fresh), 3, subset or 20)
    assert_same_batches(variant.train_dataloader(), fresh.train_dataloader())
    assert_same_batches(variant.measurement_dataloader("train", 5), fresh.measurement_dataloader("train", 5))


@KINDS
def test_a_variant_of_the_same_seed_has_the_same_data(make):
    base = ready(make(subset=20, seed=1))
    assert_same_data(base.variant(1).splits["train"], base.splits["train"])


@KINDS
def test_a_variant_leaves_the_original_alone(make):
    base, untouched = ready(make(subset=20, seed=1)), ready(make(subset=20, seed=1))
    base.variant(3, 17).variant(5)
    assert (base.seed, base.subset) == (1, 20)
    for split in SPLITS:
        assert_same_data(base.splits[split], untouched.splits[split])


@KINDS
def test_variants_share_the_memory_of_the_inputs(make):
    base = ready(make(subset=20, seed=1))
    variants = [base.variant(seed) for seed in (1, 2, 3)]
    for split in SPLITS:
        pools = {data.splits[split].pool.data_ptr() for data in (base, *variants)}
        assert len(pools) == 1
    assert len({tuple(data.splits["train"].rows.tolist()) for data in variants}) == 3


def test_images_are_loaded_once(monkeypatch):
    calls, load = [], MNIST.load
    monkeypatch.setattr(MNIST, "load", lambda self, train: calls.append(train) or load(self, train))
    base = ready(mnist(subset=20))
    base.variant(1).variant(2)
    assert calls == [True, False]


def test_a_variant_refuses_a_subset_out_of_range():
    with pytest.raises(ValueError, match=f"subset = 51; give 1 to {N}"):
        in_memory().variant(1, 51)


def test_setting_up_twice_keeps_the_splits():
    data = ready(in_memory(subset=20))
    before = data.splits["train"]
    assert ready(data).splits["train"] is before


# --- batches ---


def given(data: TensorData, epoch: int = 0) -> list[list[int]]:
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return [batch.inputs[:, 0].int().tolist() for batch in loader]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("batch_size", [None, N, N + 1])
def test_a_full_batch_is_the_training_set_in_its_order(batch_size, epoch):
    assert given(ready(in_memory(batch_size=batch_size, seed=2)), epoch) == [list(range(N))]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("replacement", [False, True], ids=["shuffle", "replacement"])
def test_training_order_is_keyed(replacement, batch_size, epoch):
    data = ready(in_memory(batch_size=batch_size, replacement=replacement, seed=2))
    order = "replacement" if replacement else "shuffle" if batch_size else "sequential"
    batches = given(data, epoch)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert list(chain(*batches)) == places(epoch * N, N, N, order, seed=2).tolist()


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_is_in_the_order_of_the_data(split):
    data = ready(in_memory(eval_batch_size=8, replacement=True))
    batches = list(getattr(data, f"{split}_dataloader")())
    assert [len(batch.labels) for batch in batches] == [8] * 6 + [2]
    assert torch.cat([batch.labels for batch in batches])[:, 0].tolist() == list(range(100, 150))


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("size", [0, -1])
def test_refuses_a_batch_size_below_one(name, size):
    with pytest.raises(ValueError, match=f"{name} = {size}; it must be at least 1"):
        in_memory(**{name: size})


@pytest.mark.parametrize("examples", [0, -1])
def test_refuses_to_measure_on_nothing(examples):
    with pytest.raises(ValueError, match=f"examples = {examples}; give at least 1"):
        ready(in_memory()).measurement_dataloader("train", examples)
