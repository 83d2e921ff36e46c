"""Label noise: its distribution, independence and keys, and that label smoothing is its expectation."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.rng import generator
from tests.tolerances import EXACT, STANDARD_ERRORS

ALL_NOISES = [NoNoise(), UniformNoise(0.5), LabelSmoothing(0.5), GaussianNoise(0.5)]
RANDOM_NOISES = [UniformNoise(0.5), GaussianNoise(0.5)]
# The probability of a standard normal deviate beyond STANDARD_ERRORS, two-sided.
RARE = 2 * stats.norm.sf(STANDARD_ERRORS)


def name_of(noise):
    return type(noise).__name__


def key(*counters):
    return generator(0, "noise", *counters)


def repeated_labels(num_classes, each):
    """Return every class equally often: 0, 1, …, C−1, 0, 1, …"""
    return torch.arange(num_classes).repeat(each)


def expected_distribution(p, num_classes):
    """Return in row k the distribution of the target of label k, (1−p)·δ + p/C, by loops in float64."""
    rows = []
    for label in range(num_classes):
        rows.append([(1 - p) * (1.0 if c == label else 0.0) + p / num_classes for c in range(num_classes)])
    return np.array(rows)


def correlation_deviate(one, other):
    """Compute the correlation of two samples in standard errors."""
    return stats.pearsonr(one, other).statistic * np.sqrt(len(one))


@contextmanager
def default_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Contract of every label noise.


@pytest.mark.parametrize("noise", ALL_NOISES, ids=name_of)
def test_targets_are_of_the_declared_kind(noise):
    targets = noise(repeated_labels(3, 4), key(), 3)
    assert targets.shape == ((12,) if noise.targets == "hard" else (12, 3))
    assert targets.dtype == (torch.int64 if noise.targets == "hard" else torch.float32)


@pytest.mark.parametrize("noise", ALL_NOISES, ids=name_of)
def test_labels_are_not_changed_in_place(noise):
    labels = repeated_labels(3, 40)
    noise(labels, key(), 3)
    assert torch.equal(labels, repeated_labels(3, 40))


@pytest.mark.parametrize("noise", ALL_NOISES, ids=name_of)
def test_same_key_same_targets(noise):
    labels = repeated_labels(10, 10)
    assert torch.equal(noise(labels, key(3, 4), 10), noise(labels, key(3, 4), 10))


@pytest.mark.parametrize("noise", RANDOM_NOISES, ids=name_of)
def test_targets_are_fresh_at_every_step(noise):
    labels = repeated_labels(10, 10)
    one_generator = key()
    steps = [noise(labels, key(0, batch), 10) for batch in range(3)]
    steps += [noise(labels, one_generator, 10) for _ in range(3)][1:]
    assert not any(torch.equal(a, b) for i, a in enumerate(steps) for b in steps[:i])


@pytest.mark.parametrize("noise", ALL_NOISES, ids=name_of)
@pytest.mark.parametrize("other", [[0] * 60, [2] * 60, [0, 1, 2] * 20], ids=["all 0", "all 2", "mixed"])
def test_amount_drawn_does_not_depend_on_label_values(noise, other):
    one, two = key(), key()
    noise(torch.ones(60, dtype=torch.int64), one, 3)
    noise(torch.tensor(other), two, 3)
    assert torch.equal(one.get_state(), two.get_state())


@pytest.mark.parametrize("noise", [NoNoise(), LabelSmoothing(0.5)], ids=name_of)
def test_deterministic_noise_draws_nothing(noise):
    drawn_on = key()
    noise(repeated_labels(3, 4), drawn_on, 3)
    assert torch.equal(drawn_on.get_state(), key().get_state())


@pytest.mark.parametrize("noise", ALL_NOISES, ids=name_of)
def test_global_generator_is_left_alone(noise):
    before = torch.get_rng_state()
    noise(repeated_labels(3, 4), key(), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("labels", [torch.arange(4), torch.rand(4, 2)], ids=["classes", "real"])
def test_no_noise_returns_the_labels(labels):
    assert torch.equal(NoNoise()(labels, key()), labels)


# Drawing and applying. What is drawn depends on the labels' shape only: `draw` is not given more.

REAL_LABELS = torch.linspace(-1, 1, 24).view(12, 2)
DRAWN = {  # noise, labels, number of classes, shape and type of what is drawn
    "NoNoise-classes": (NoNoise(), repeated_labels(3, 4), 3, (12, 0), torch.float32),
    "NoNoise-real": (NoNoise(), REAL_LABELS, None, (12, 0), torch.float32),
    "UniformNoise": (UniformNoise(0.5), repeated_labels(3, 4), 3, (12,), torch.int64),
    "LabelSmoothing": (LabelSmoothing(0.5), repeated_labels(3, 4), 3, (12, 0), torch.float32),
    "GaussianNoise-classes": (GaussianNoise(0.5), repeated_labels(3, 4), 3, (12, 3), torch.float32),
    "GaussianNoise-real": (GaussianNoise(0.5), REAL_LABELS, None, (12, 2), torch.float32),
    "GaussianNoise-real-one": (GaussianNoise(0.5), REAL_LABELS[:, 0], None, (12,), torch.float32),
}
DRAWS = pytest.mark.parametrize("noise, labels, classes, shape, dtype", DRAWN.values(), ids=DRAWN)


@DRAWS
def test_a_draw_has_a_row_for_every_label(noise, labels, classes, shape, dtype):
    drawn = noise.draw(labels.shape, key(), classes)
    assert (drawn.shape, drawn.dtype) == (shape, dtype)
    assert torch.equal(noise.draw(tuple(labels.shape), key(), classes), drawn)


@DRAWS
def test_a_call_draws_and_applies(noise, labels, classes, shape, dtype):
    applied = noise.apply(labels, noise.draw(labels.shape, key(), classes), classes)
    assert torch.equal(noise(labels, key(), classes), applied)


@DRAWS
def test_noise_is_applied_to_each_label_on_its_own(noise, labels, classes, shape, dtype):
    drawn = noise.draw(labels.shape, key(), classes)
    whole = noise.apply(labels, drawn, classes)
    for rows in (slice(0, 5), slice(5, 6), slice(1, None, 2), slice(0, 0)):  # as steps and processes take them
        assert torch.equal(noise.apply(labels[rows], drawn[rows], classes), whole[rows])


@DRAWS
def test_applying_leaves_labels_and_noise_alone(noise, labels, classes, shape, dtype):
    drawn = noise.draw(labels.shape, key(), classes)
    kept_labels, kept_noise = labels.clone(), drawn.clone()
    first = noise.apply(labels, drawn, classes)
    assert torch.equal(noise.apply(labels, drawn, classes), first)
    assert torch.equal(labels, kept_labels)
    assert torch.equal(drawn, kept_noise)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_uniform_noise_marks_the_labels_that_are_kept(p):
    drawn = UniformNoise(p).draw((20_000,), key(), 10)
    assert drawn.min() >= -1
    assert drawn.max() < 10
    kept = (drawn == -1).double().mean().item()
    assert abs(kept - (1 - p)) <= STANDARD_ERRORS * np.sqrt(p * (1 - p) / 20_000)


# The same noise at another level.

LEVELS = {
    "UniformNoise": (UniformNoise, "p"),
    "LabelSmoothing": (LabelSmoothing, "p"),
    "Gaussian": (GaussianNoise, "std"),
}
EACH_LEVEL = pytest.mark.parametrize("noise, name", LEVELS.values(), ids=LEVELS)


@EACH_LEVEL
@pytest.mark.parametrize("level", [0.0, 0.2, 1.0])
def test_at_level_is_the_noise_of_that_level(noise, name, level):
    original, labels = noise(0.7), repeated_labels(3, 40)
    other = original.at_level(level)
    assert type(other) is noise
    assert (getattr(other, name), getattr(original, name)) == (level, 0.7)
    assert torch.equal(other(labels, key(), 3), noise(level)(labels, key(), 3))


@EACH_LEVEL
def test_at_level_refuses_what_the_noise_refuses(noise, name):
    with pytest.raises(ValueError, match=f"{noise.__name__}: {name} = -0.1"):
        noise(0.7).at_level(-0.1)


def test_no_noise_has_no_level():
    with pytest.raises(ValueError, match=r"noise = 0\.2, but NoNoise has no level; choose another label noise"):
        NoNoise().at_level(0.2)


def test_a_noise_has_to_say_how_it_draws_and_applies():
    assert LabelNoise.__abstractmethods__ == {"draw", "apply"}


# Uniform noise.


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_uniform_noise_distribution_per_true_class(p, num_classes):
    each = 20_000
    labels = repeated_labels(num_classes, each)
    targets = UniformNoise(p)(labels, key(), num_classes)
    for label, probabilities in enumerate(expected_distribution(p, num_classes)):
        counts = torch.bincount(targets[labels == label], minlength=num_classes).numpy()
        pvalue = stats.chisquare(counts, each * probabilities).pvalue
        assert RARE / 2 < pvalue < 1 - RARE / 2, f"true class {label}"


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 1.0])
def test_uniform_noise_flip_rate(p, num_classes):
    labels = repeated_labels(num_classes, 200_000 // num_classes)
    flipped = (UniformNoise(p)(labels, key(), num_classes) != labels).double().mean().item()
    expected = p * (num_classes - 1) / num_classes
    stderr = np.sqrt(expected * (1 - expected) / len(labels))
    assert abs(flipped - expected) < STANDARD_ERRORS * stderr


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_uniform_noise_without_noise_is_the_identity(labels, step):
    labels = torch.tensor(labels)
    assert torch.equal(UniformNoise(0.0)(labels, key(step), 10), labels)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_full_uniform_noise_forgets_the_labels(labels, step):
    labels = torch.tensor(labels)
    noise = UniformNoise(1.0)
    assert torch.equal(noise(labels, key(step), 5), noise(torch.zeros_like(labels), key(step), 5))


@given(st.integers(2, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_uniform_noise_replaces_the_same_positions_whatever_the_labels(num_classes, data):
    labels = torch.tensor(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=50)))
    noise, step = UniformNoise(0.5), data.draw(st.integers(0, 1000))
    zeros = noise(torch.zeros_like(labels), key(step), num_classes)
    ones = noise(torch.ones_like(labels), key(step), num_classes)
    replaced = zeros == ones  # a label that was kept differs between all-zero and all-one labels
    assert torch.equal(noise(labels, key(step), num_classes), torch.where(replaced, zeros, labels))


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_uniform_noise_gives_existing_classes(num_classes, p, step):
    targets = UniformNoise(p)(repeated_labels(num_classes, 5), key(step), num_classes)
    assert targets.min() >= 0
    assert targets.max() < num_classes


@pytest.mark.parametrize("lag", [1, 2, 16])
def test_uniform_noise_flips_positions_independently(lag):
    labels = torch.zeros(50_000, dtype=torch.int64)
    flipped = (UniformNoise(0.3)(labels, key(), 10) != labels).double()
    assert abs(correlation_deviate(flipped[lag:], flipped[:-lag])) < STANDARD_ERRORS


def test_uniform_noise_draws_classes_of_neighbours_independently():
    targets = UniformNoise(1.0)(torch.zeros(50_000, dtype=torch.int64), key(), 10).numpy()
    pairs = np.zeros((10, 10))
    np.add.at(pairs, (targets[::2], targets[1::2]), 1)
    pvalue = stats.chi2_contingency(pairs).pvalue
    assert RARE / 2 < pvalue < 1 - RARE / 2


@pytest.mark.parametrize("other", [(0, 1), (1, 0)], ids=["batch", "epoch"])
def test_uniform_noise_of_two_steps_is_independent(other):
    labels = torch.zeros(50_000, dtype=torch.int64)
    one, two = ((UniformNoise(0.3)(labels, key(*step), 10) != 0).double() for step in [(0, 0), other])
    assert abs(correlation_deviate(one, two)) < STANDARD_ERRORS


# Label smoothing.


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_label_smoothing_formula(labels, p):
    with default_float64():
        targets = LabelSmoothing(p)(torch.tensor(labels), key(), 7)
    assert targets.dtype == torch.float64
    np.testing.assert_allclose(targets.numpy(), expected_distribution(p, 7)[labels], **EXACT)
    np.testing.assert_allclose(targets.sum(1).numpy(), 1.0, **EXACT)
    assert (targets >= 0).all()


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_label_smoothing_rows_sum_to_one_in_float32(p):
    sums = LabelSmoothing(p)(repeated_labels(10, 1), key(), 10).sum(1)
    np.testing.assert_allclose(sums.numpy(), 1.0, atol=10 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_label_smoothing_is_the_expectation_of_uniform_noise(p, num_classes):
    draws = 50_000
    smoothed = LabelSmoothing(p)(torch.arange(num_classes), key(), num_classes).double()
    noisy = UniformNoise(p)(repeated_labels(num_classes, draws), key(1), num_classes)
    onehot = torch.eye(num_classes, dtype=torch.float64)[noisy]
    mean = onehot.view(draws, num_classes, num_classes).mean(0)
    stderr = (smoothed * (1 - smoothed) / draws).sqrt()
    assert ((mean - smoothed).abs() < STANDARD_ERRORS * stderr).all()


# Gaussian noise.

REAL = torch.linspace(-5, 5, 60_000, dtype=torch.float64).view(20_000, 3)
GAUSSIAN_LABELS = {"real": (REAL, None, REAL)}
CLASSES = repeated_labels(3, 20_000 // 3)
GAUSSIAN_LABELS["classes"] = (CLASSES, 3, torch.eye(3, dtype=torch.float64)[CLASSES])


def gaussian_residuals(std, kind):
    """Compute (targets − noiseless targets) / std, flat."""
    labels, num_classes, clean = GAUSSIAN_LABELS[kind]
    targets = GaussianNoise(std)(labels, key(), num_classes)
    assert targets.shape == clean.shape
    return ((targets.double() - clean) / std).flatten().numpy()


@pytest.mark.parametrize("kind", GAUSSIAN_LABELS)
@pytest.mark.parametrize("std", [0.1, 3.0])
def test_gaussian_noise_mean_and_standard_deviation(std, kind):
    residuals = gaussian_residuals(std, kind)
    n = len(residuals)
    assert abs(residuals.mean()) < STANDARD_ERRORS / np.sqrt(n)
    assert abs(residuals.std() - 1) < STANDARD_ERRORS / np.sqrt(2 * n)


@pytest.mark.parametrize("kind", GAUSSIAN_LABELS)
def test_gaussian_noise_is_normal(kind):
    pvalue = stats.kstest(gaussian_residuals(0.5, kind), stats.norm.cdf).pvalue
    assert RARE / 2 < pvalue < 1 - RARE / 2


@pytest.mark.parametrize("kind", GAUSSIAN_LABELS)
@pytest.mark.parametrize("lag", [1, 3], ids=["next output", "next example"])
def test_gaussian_noise_is_independent_for_every_entry(kind, lag):
    residuals = gaussian_residuals(0.5, kind)
    assert abs(correlation_deviate(residuals[lag:], residuals[:-lag])) < STANDARD_ERRORS


@pytest.mark.parametrize("kind", GAUSSIAN_LABELS)
def test_gaussian_noise_with_zero_std_is_the_identity(kind):
    labels, num_classes, clean = GAUSSIAN_LABELS[kind]
    assert torch.equal(GaussianNoise(0.0)(labels, key(), num_classes).double(), clean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 3)], ids=str)
def test_gaussian_noise_keeps_shape_and_type_of_real_targets(shape, dtype):
    targets = GaussianNoise(1.0)(torch.zeros(shape, dtype=dtype), key())
    assert (targets.shape, targets.dtype) == (shape, dtype)


def test_gaussian_noise_is_the_same_whatever_the_labels():
    noise = GaussianNoise(2.0)
    zeros, ones = (noise(torch.full((100, 3), value, dtype=torch.float64), key()) for value in (0.0, 1.0))
    np.testing.assert_allclose((ones - zeros).numpy(), 1.0, **EXACT)


# Errors name the class and the value.


@pytest.mark.parametrize("noise", [UniformNoise, LabelSmoothing], ids=lambda noise: noise.__name__)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), float("inf"), float("-inf")])
def test_probability_outside_the_unit_interval(noise, p):
    with pytest.raises(ValueError, match=rf"{noise.__name__}: p = {p} is outside \[0, 1\]"):
        noise(p)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf"), float("-inf")])
def test_bad_standard_deviation(std):
    with pytest.raises(ValueError, match=f"GaussianNoise: std = {std}"):
        GaussianNoise(std)


CLASS_NOISES = pytest.mark.parametrize("noise", [UniformNoise(0.1), LabelSmoothing(0.1)], ids=name_of)


@CLASS_NOISES
def test_real_targets_are_refused_by_class_noise(noise):
    with pytest.raises(ValueError, match=f"{name_of(noise)} is defined for class labels, not for real targets"):
        noise(torch.rand(4, 3), key(), 3)


@CLASS_NOISES
@pytest.mark.parametrize("labels", [torch.arange(3), torch.rand(4, 3)], ids=["classes", "real"])
def test_class_noise_needs_the_number_of_classes(noise, labels):
    with pytest.raises(ValueError, match=f"{name_of(noise)} needs num_classes.* for real targets use GaussianNoise"):
        noise(labels, key())


@CLASS_NOISES
@pytest.mark.parametrize("num_classes", [None, 3], ids=["classes unknown", "classes known"])
def test_class_noise_is_not_applied_to_real_targets(noise, num_classes):
    drawn = noise.draw((4,), key(), 3)
    with pytest.raises(ValueError, match=f"{name_of(noise)} is defined for class labels, not for real targets"):
        noise.apply(torch.rand(4, 3), drawn, num_classes)


def test_gaussian_noise_on_class_labels_needs_their_number():
    with pytest.raises(ValueError, match="GaussianNoise on class labels needs num_classes"):
        GaussianNoise(0.1)(torch.arange(3), key())
