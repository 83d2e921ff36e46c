"""Gaussian inputs: their distribution, independent labels, keys and variants."""

import numpy as np
import pytest
import torch
from scipy import stats

from lnsgd.data import GaussianInputs
from tests.tolerances import STANDARD_ERRORS

RARE = stats.norm.sf(STANDARD_ERRORS)
SPLITS = ("train", "val", "test")


def ready(**options) -> GaussianInputs:
    data = GaussianInputs(**{"dimension": 4, "train_size": 5000, "test_size": 3000, **options})
    data.setup()
    return data


def inputs(data: GaussianInputs, split: str = "train") -> np.ndarray:
    return data.splits[split].inputs.double().numpy()


def test_the_default_dimension_is_that_of_the_paper():
    data = GaussianInputs()
    assert (data.dimension, data.num_classes, data.batch_size, data.order) == (30, 2, 1, "replacement")


@pytest.mark.parametrize("split", SPLITS)
def test_inputs_are_standard_normal(split):
    sample = inputs(ready(), split).ravel()
    assert RARE < stats.kstest(sample, "norm").pvalue < 1 - RARE
    n = len(sample)
    assert abs(sample.mean()) < STANDARD_ERRORS / np.sqrt(n)
    assert abs(sample.var() - 1) < STANDARD_ERRORS * np.sqrt(2 / n)


@pytest.mark.parametrize("split", SPLITS)
def test_coordinates_are_independent(split):
    sample = inputs(ready(), split)
    correlations = np.corrcoef(sample.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() * np.sqrt(len(sample)) < STANDARD_ERRORS
    # So are their sizes, and the length of x is that of d independent numbers.
    sizes = np.corrcoef((sample**2).T)[np.triu_indices(4, 1)]
    assert np.abs(sizes).max() * np.sqrt(len(sample)) < STANDARD_ERRORS
    assert RARE < stats.kstest((sample**2).sum(1), stats.chi2(4).cdf).pvalue < 1 - RARE


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced_and_independent_of_inputs(split):
    data = ready()
    sample, labels = inputs(data, split), data.splits[split].labels
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == {0, 1}
    signs = 2 * labels.double().numpy() - 1
    error = np.sqrt(len(signs))
    assert abs(signs.mean()) * error < STANDARD_ERRORS
    assert np.abs(signs @ sample / len(signs)).max() * error < STANDARD_ERRORS


def test_sizes_and_shapes():
    data = ready(dimension=7, train_size=11, test_size=5)
    assert [tuple(data.splits[split].inputs.shape) for split in SPLITS] == [(11, 7), (5, 7), (5, 7)]


def test_splits_do_not_share_examples():
    data = ready(train_size=3000)
    drawn = [inputs(data, split) for split in SPLITS]
    rows = [set(map(tuple, sample)) for sample in drawn]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not rows[one] & rows[other]
        assert abs(np.corrcoef(drawn[one].ravel(), drawn[other].ravel())[0, 1]) * np.sqrt(12_000) < STANDARD_ERRORS


def test_data_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ready(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = ready(seed=3), ready(seed=4)
    for split in SPLITS:
        assert torch.equal(first.splits[split].inputs, again.splits[split].inputs)
        assert torch.equal(first.splits[split].labels, again.splits[split].labels)
        assert not torch.equal(first.splits[split].inputs, other.splits[split].inputs)


def test_validation_inputs_do_not_depend_on_the_training_size():
    assert torch.equal(ready(train_size=10).splits["val"].inputs, ready(train_size=999).splits["val"].inputs)


def test_a_variant_equals_the_data_of_its_seed():
    data = ready(seed=0)
    before = data.splits["train"].inputs.clone()
    variant, alone = data.variant(7, subset=100), ready(seed=7, subset=100)
    for split in SPLITS:
        assert torch.equal(variant.splits[split].inputs, alone.splits[split].inputs)
        assert torch.equal(variant.splits[split].labels, alone.splits[split].labels)
    assert len(variant.splits["train"]) == 100
    assert torch.equal(data.splits["train"].inputs, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension = 0"),
        ({"train_size": 0}, "train_size = 0"),
        ({"test_size": -1}, "test_size = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"subset": 5001}, "subset = 5001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ready(**options)
