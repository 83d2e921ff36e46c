"""The standard basis: each vector once, drawn uniformly, the same for every seed."""

from itertools import islice

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import StandardBasis
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SPLITS = ("train", "val", "test")


def ready(**options) -> StandardBasis:
    data = StandardBasis(**{"dimension": 6, **options})
    data.setup()
    return data


@pytest.mark.parametrize("split", SPLITS)
def test_each_unit_vector_once(split):
    examples = ready().splits[split]
    assert examples.inputs.tolist() == [[float(i == j) for j in range(6)] for i in range(6)]
    assert (examples.labels.shape, examples.labels.dtype) == ((6,), torch.int64)
    assert set(examples.labels.tolist()) <= {0, 1}


def drawn(data: StandardBasis, epochs: int) -> list[int]:
    """Which vector each step of these epochs sees."""
    loader, seen = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        seen += [int(batch.inputs.argmax()) for batch in islice(loader, 6)]
    return seen


def test_each_step_draws_a_vector_uniformly():
    seen = drawn(ready(), 500)
    assert len(seen) == 3000
    counts = np.bincount(seen, minlength=6)
    assert RARE < stats.chisquare(counts).pvalue < 1 - RARE
    repeats = np.mean(np.array(seen[1:]) == seen[:-1])
    assert abs(repeats - 1 / 6) < STANDARD_ERRORS * np.sqrt(5 / 36 / 2999)


def test_order_is_keyed_by_the_seed():
    assert drawn(ready(seed=1), 5) == drawn(ready(seed=1), 5) != drawn(ready(seed=2), 5)


def test_a_variant_differs_in_its_order_only():
    data = ready(seed=0)
    variant = data.variant(2)
    assert torch.equal(variant.splits["train"].inputs, data.splits["train"].inputs)
    assert drawn(variant, 3) == drawn(ready(seed=2), 3)


def test_only_the_training_set_has_a_subset():
    data = ready(subset=4)
    assert [len(data.splits[split]) for split in SPLITS] == [4, 6, 6]
    assert len(ready().variant(0, subset=2).splits["train"]) == 2


@pytest.mark.parametrize(
    ("options", "message"), [({"dimension": 0}, "dimension = 0"), ({"subset": 7}, "subset = 7")], ids=["d", "subset"]
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
