"""Changes of a data set before training: classes kept, subsets drawn, labels corrupted."""

from itertools import pairwise
from math import sqrt

import pytest
import torch
from scipy import stats
from tolerances import STANDARD_ERRORS

from lnsgd.data.tensors import LabelledTensors, corrupt_labels, draw_subset, keep_classes, perturb_labels

CLASSES = 10

# A goodness-of-fit test fails on a misfit and on a fit too good to be random.
FITS = (1e-4, 1 - 1e-4)


def numbered(n: int, label_offset: int = 0) -> LabelledTensors:
    """Example i has the input i, so that it can be followed wherever it goes."""
    return LabelledTensors(torch.arange(n).view(n, 1), torch.arange(n) % CLASSES + label_offset)


def ids(data: LabelledTensors) -> list[int]:
    return data.inputs[:, 0].tolist()


# --- LabelledTensors ---


def test_a_subset_has_the_chosen_examples_in_their_order():
    chosen = torch.tensor([41, 3, 3, 0])
    subset = numbered(57)[chosen]
    assert len(subset) == 4
    assert ids(subset) == chosen.tolist()
    assert torch.equal(subset.labels, chosen % CLASSES)


def test_a_subset_of_a_subset_indexes_the_whole():
    whole, generator = numbered(57), torch.Generator().manual_seed(0)
    part, rows = whole, torch.arange(57)
    for size in (40, 20, 5):
        chosen = torch.randperm(len(part), generator=generator)[:size]
        part, rows = part[chosen], rows[chosen]
        assert torch.equal(part.rows, rows)
        assert ids(part) == rows.tolist()
        assert torch.equal(part.labels, whole.labels[rows])


def test_a_subset_shares_the_memory_of_the_inputs():
    whole = numbered(57)
    part = corrupt_labels(draw_subset(keep_classes(whole, (3, 8)), 5, seed=0), 0.5, 2, seed=0)
    assert part.pool.data_ptr() == part.to("cpu").pool.data_ptr() == whole.pool.data_ptr()
    assert len(part) == 5


def test_the_inputs_of_all_examples_are_not_copied():
    whole = numbered(57)
    assert whole.inputs.data_ptr() == whole.pool.data_ptr()


def test_replaced_labels_belong_to_the_same_examples():
    part = numbered(57)[torch.tensor([41, 3])]
    relabelled = part.with_labels(torch.tensor([7, 6]))
    assert (ids(relabelled), relabelled.labels.tolist()) == ([41, 3], [7, 6])
    assert part.labels.tolist() == [1, 3]


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)], ids=str)
def test_labels_may_be_real_targets_of_any_shape(shape):
    targets = torch.randn(57, *shape, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([41, 3, 0])
    part = LabelledTensors(torch.arange(57).view(57, 1), targets)[chosen]
    assert torch.equal(part.labels, targets[chosen])
    assert ids(part) == chosen.tolist()


# --- keep_classes ---


@pytest.mark.parametrize("classes", [(2, 7), (7, 2), (9, 0, 4), tuple(range(10))], ids=str)
def test_keep_classes_equals_a_plain_loop(classes):
    kept = keep_classes(numbered(57), classes)
    expected = [(i, classes.index(i % CLASSES)) for i in range(57) if i % CLASSES in classes]
    assert list(zip(ids(kept), kept.labels.tolist())) == expected
    assert kept.labels.dtype == torch.int64


@pytest.mark.parametrize(
    "classes",
    [[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], ((9, 0), (4,)), (7, [2, 1]), [[3], [8]]],
    ids=str,
)
def test_a_list_of_classes_becomes_one(classes):
    kept = keep_classes(numbered(57), classes)
    groups = [[entry] if isinstance(entry, int) else entry for entry in classes]
    expected = [(i, new) for i in range(57) for new, group in enumerate(groups) if i % CLASSES in group]
    assert list(zip(ids(kept), kept.labels.tolist())) == expected
    assert kept.labels.dtype == torch.int64


WRONG_LISTS = [[[0, 1]], [[0, 1], []], [[0, 1], [1, 2]], [[0, 1], 1], [[0, 0], 1], [[0, 10], 1], [[], []]]


@pytest.mark.parametrize("classes", [[], [3], [3, 3], [3, 4, 3], [3, 10], [-1, 3], *WRONG_LISTS], ids=str)
def test_keep_classes_refuses(classes):
    with pytest.raises(ValueError, match=r"two or more different ones of \[0, 1, 2.*, or lists of them") as error:
        keep_classes(numbered(57), classes)
    assert str(error.value).startswith(f"classes = {classes}; ")
    assert "\n" not in str(error.value)


# --- draw_subset ---


@pytest.mark.parametrize("size", [1, 20, 57])
def test_subset_has_its_size_and_no_example_twice(size):
    subset = draw_subset(numbered(57), size, seed=3)
    assert len(subset) == len(set(ids(subset))) == size
    assert subset.labels.tolist() == [i % CLASSES for i in ids(subset)]


def test_subsets_are_nested():
    subsets = [set(ids(draw_subset(numbered(57), size, seed=3))) for size in range(1, 58)]
    assert all(small < large for small, large in pairwise(subsets))


def test_subset_is_keyed_by_the_seed():
    first, again, other = (ids(draw_subset(numbered(200), 20, seed)) for seed in (3, 3, 4))
    assert first == again
    assert set(first) != set(other)


def test_every_example_is_equally_likely_in_a_subset():
    n, size, seeds = 20, 5, 600
    drawn = torch.tensor([ids(draw_subset(numbered(n), size, seed)) for seed in range(seeds)])
    often = torch.bincount(drawn.flatten(), minlength=n)
    # Without replacement the counts vary less than multinomial ones, by (n − size)/(n − 1).
    statistic = ((often - seeds * size / n).square() / (seeds * size / n)).sum() * (n - 1) / (n - size)
    assert FITS[0] < stats.chi2.sf(statistic.item(), n - 1) < FITS[1]


@pytest.mark.parametrize("size", [-1, 0, 58])
def test_subset_refuses_a_size_out_of_range(size):
    with pytest.raises(ValueError, match=f"subset = {size}; give 1 to 57"):
        draw_subset(numbered(57), size, seed=0)


# --- corrupt_labels ---
# Where the true labels are 10 to 19 and the drawn ones 0 to 9, each drawn label shows.


@pytest.mark.parametrize(("n", "fraction"), [(1000, 0.0), (1000, 0.3), (997, 0.1), (7, 0.5), (1000, 1.0)])
def test_the_number_of_corrupted_labels_is_exact(n, fraction):
    corrupted = corrupt_labels(numbered(n, label_offset=CLASSES), fraction, CLASSES, seed=1)
    assert (corrupted.labels < CLASSES).sum() == round(fraction * n)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_a_drawn_label_may_be_the_true_one(fraction, classes):
    n = 20_000
    clean = LabelledTensors(torch.zeros(n, 1), torch.arange(n) % classes)
    changed = (corrupt_labels(clean, fraction, classes, seed=1).labels != clean.labels).sum().item()
    drawn, rate = fraction * n, (classes - 1) / classes
    assert abs(changed - drawn * rate) < STANDARD_ERRORS * sqrt(drawn * rate * (1 - rate))


def test_drawn_labels_are_uniform_and_independent_of_true_labels():
    clean = numbered(20_000, label_offset=CLASSES)
    corrupted = corrupt_labels(clean, 0.5, CLASSES, seed=2)
    hit = corrupted.labels < CLASSES
    pairs = (clean.labels[hit] - CLASSES) * CLASSES + corrupted.labels[hit]
    table = torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES).numpy()
    assert FITS[0] < stats.chisquare(table.sum(0)).pvalue < FITS[1]
    assert FITS[0] < stats.chi2_contingency(table).pvalue < FITS[1]


def test_every_example_is_equally_likely_to_be_corrupted():
    n, blocks = 20_000, 20
    hit = corrupt_labels(numbered(n, label_offset=CLASSES), 0.5, CLASSES, seed=2).labels < CLASSES
    counts = hit.view(blocks, -1).sum(1).double()
    # n/2 hits among n places: hypergeometric counts, whose variance is half the multinomial one.
    statistic = ((counts - counts.mean()).square() / (counts.mean() / 2)).sum().item()
    assert FITS[0] < stats.chi2.sf(statistic, blocks - 1) < FITS[1]


def test_corruption_is_nested_in_the_fraction():
    clean = numbered(500, label_offset=CLASSES)
    corrupted = [corrupt_labels(clean, fraction, CLASSES, seed=1).labels for fraction in (0.1, 0.3, 0.31, 1.0)]
    for less, more in pairwise(corrupted):
        hit = less < CLASSES
        assert torch.equal(more[hit], less[hit])


def test_corruption_leaves_inputs_and_the_original_alone():
    clean = numbered(100)
    corrupted = corrupt_labels(clean, 1.0, CLASSES, seed=1)
    assert torch.equal(corrupted.inputs, numbered(100).inputs)
    assert torch.equal(clean.labels, numbered(100).labels)
    assert corrupted.labels.dtype == torch.int64
    assert set(corrupted.labels.tolist()) <= set(range(CLASSES))


def test_corruption_is_keyed_by_the_seed():
    clean = numbered(500, label_offset=CLASSES)
    first, again, other = (corrupt_labels(clean, 0.5, CLASSES, seed).labels for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first < CLASSES, other < CLASSES)
    both = (first < CLASSES) & (other < CLASSES)
    assert not torch.equal(first[both], other[both])


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan")])
def test_corruption_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=f"corrupted_fraction = {fraction}"):
        corrupt_labels(numbered(10), fraction, CLASSES, seed=0)


# --- perturb_labels ---


def real(n: int, dtype: torch.dtype = torch.float32) -> LabelledTensors:
    return LabelledTensors(torch.arange(n).view(n, 1), torch.arange(2 * n, dtype=dtype).view(n, 2))


def test_perturbation_is_normal_and_independent_for_each_entry():
    clean = real(5000, torch.float64)
    added = (perturb_labels(clean, 0.5, seed=1).labels - clean.labels).numpy()
    fit = stats.kstest(added.ravel() / 0.5, "norm").pvalue
    assert FITS[0] < fit < FITS[1]
    assert abs(stats.pearsonr(*added.T).statistic) < STANDARD_ERRORS / sqrt(5000)


def test_perturbation_is_keyed_by_the_seed_and_scales_with_std():
    clean = LabelledTensors(torch.zeros(50, 1), torch.zeros(50, 1))
    once, again, other, twice = (
        perturb_labels(clean, std, seed).labels for std, seed in ((0.5, 1), (0.5, 1), (0.5, 2), (1.0, 1))
    )
    assert torch.equal(once, again)
    assert not (once == other).any()
    assert torch.equal(twice, 2 * once)


def test_zero_std_leaves_labels_alone():
    assert perturb_labels(numbered(10), 0, seed=1).labels.tolist() == numbered(10).labels.tolist()


def test_perturbation_changes_only_the_labels_of_the_copy():
    clean = real(10)
    perturbed = perturb_labels(clean, 0.1, seed=1)
    assert torch.equal(clean.labels, real(10).labels)
    assert perturbed.pool is clean.pool
    assert perturbed.labels.dtype == torch.float32


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_perturbation_refuses_a_std_out_of_range(std):
    with pytest.raises(ValueError, match=f"label_std = {std}"):
        perturb_labels(real(10), std, seed=0)


def test_perturbation_refuses_class_labels():
    with pytest.raises(ValueError, match=r"label_std = 0\.1 is for real targets"):
        perturb_labels(numbered(10), 0.1, seed=0)
