"""Streams of samples and of noise: keyed, endless, and independent of how they are divided."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lnsgd.label_noise import GaussianNoise, LabelNoise, LabelSmoothing, NoNoise, UniformNoise
from lnsgd.streams import CropStream, NoiseSchedule, NoiseStream, SampleOrder
from tests.reference.streams import BLOCK, crop, gaussian_noise, places, uniform_targets

ORDERS = ("shuffle", "replacement", "sequential")
RANDOM_ORDERS = ("shuffle", "replacement")

# A goodness-of-fit test fails on a misfit and on a fit too good to be random.
FITS = (1e-4, 1 - 1e-4)

# A block holds many epochs, few, less than two, exactly one, and less than one.
SIZES = (1, 7, 5000, 9000, BLOCK, 20_000)

N = 5000
EPOCHS_IN_BLOCK = 3  # of 5000 examples: a block of 15,000

CLASS_NOISES = [NoNoise(), UniformNoise(0.5), LabelSmoothing(0.5), GaussianNoise(0.5)]
RANDOM_NOISES = [UniformNoise(0.5), GaussianNoise(0.5)]


def name_of(noise: LabelNoise) -> str:
    return type(noise).__name__


def noise_of_classes(noise: LabelNoise, seed: int = 0, classes: int = 3) -> NoiseStream:
    return NoiseStream(noise, seed, num_classes=classes)


STREAMS = {
    **{f"{order}-{n}": (lambda order=order, n=n: SampleOrder(n, order, 2)) for order in ORDERS for n in (7, N, 20_000)},
    **{f"{name_of(noise)}-classes": (lambda noise=noise: noise_of_classes(noise)) for noise in CLASS_NOISES},
    "crops": lambda: CropStream(9, 2),
    "GaussianNoise-real": lambda: NoiseStream(GaussianNoise(0.5), 0, shape=(2,)),
}
EACH_STREAM = pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)


# --- every stream ---


@EACH_STREAM
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3 * BLOCK), st.lists(st.integers(1, BLOCK), min_size=1, max_size=5))
def test_streams_do_not_depend_on_how_they_are_divided(make, start, sizes):
    stream, at, parts = make(), start, []
    for size in sizes:
        parts.append(stream.take(at, size))
        at += size
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), make().take(start, sum(sizes)))


@EACH_STREAM
def test_single_rows_across_a_block_boundary(make):
    stream = make()
    for boundary in (15_000, BLOCK, 16_380, 20_000, 2 * BLOCK):  # of the streams here; of the others, any place
        rows = [stream.take(example, 1) for example in range(boundary - 3, boundary + 3)]
        assert torch.equal(torch.cat(rows), make().take(boundary - 3, 6))


@EACH_STREAM
def test_streams_do_not_depend_on_earlier_rows(make):
    used, expected = make(), make().take(BLOCK - 5, 10)
    for start, count in ((0, 3), (5 * BLOCK, 2), (BLOCK - 5, 10), (2 * BLOCK, 1), (BLOCK - 1, 1)):
        used.take(start, count)
    assert torch.equal(used.take(BLOCK - 5, 10), expected)


@EACH_STREAM
def test_the_global_generator_neither_matters_nor_moves(make):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = make().take(BLOCK - 5, 10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(make().take(BLOCK - 5, 10), one)


# --- samples ---


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("order", ORDERS)
def test_places_are_those_of_the_contract(order, n):
    stream = SampleOrder(n, order, seed=3)
    epoch_block = max(1, BLOCK // n) * n
    for start in {0, max(0, n - 2), BLOCK - 2, 2 * BLOCK - 1, max(0, epoch_block - 2), 2 * epoch_block}:
        taken = stream.take(start, 3)
        assert taken.dtype == torch.int64
        assert taken.tolist() == places(start, 3, n, order, seed=3).tolist()


@pytest.mark.parametrize("n", [1, 2, 7, 5000, 20_000])
def test_every_epoch_of_a_shuffle_is_another_permutation(n):
    stream, epochs = SampleOrder(n, "shuffle", seed=0), range(5)
    orders = [stream.take(epoch * n, n) for epoch in epochs]
    assert all(torch.equal(order.sort().values, torch.arange(n)) for order in orders)
    if n > 2:
        assert len({tuple(order.tolist()) for order in orders}) == len(epochs)


def test_permutations_stay_whole_over_block_boundaries():
    stream, n = SampleOrder(N, "shuffle", seed=1), N
    for epoch in range(2 * EPOCHS_IN_BLOCK - 1, 2 * EPOCHS_IN_BLOCK + 2):
        assert torch.equal(stream.take(epoch * n, n).sort().values, torch.arange(n))


def test_all_permutations_are_equally_likely():
    epochs = 7200
    orders = SampleOrder(4, "shuffle", seed=5).take(0, 4 * epochs).view(epochs, 4)
    counts = (orders * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert FITS[0] < stats.chisquare(counts.numpy()).pvalue < FITS[1]


def test_successive_permutations_are_independent():
    orders = SampleOrder(6, "shuffle", seed=6).take(0, 6 * 10_000).view(-1, 6)
    pairs = orders[::2, 0] * 6 + orders[1::2, 0]
    table = torch.bincount(pairs, minlength=36).view(6, 6).numpy()
    assert FITS[0] < stats.chi2_contingency(table).pvalue < FITS[1]


@pytest.mark.parametrize("start", [0, BLOCK - 30_000 % BLOCK, 5 * BLOCK])
def test_replacement_is_uniform_and_independent(start):
    n = 10
    draws = SampleOrder(n, "replacement", seed=7).take(start, 60_000)
    assert FITS[0] < stats.chisquare(torch.bincount(draws, minlength=n).numpy()).pvalue < FITS[1]
    table = torch.bincount(draws[::2] * n + draws[1::2], minlength=n * n).view(n, n).numpy()
    assert FITS[0] < stats.chi2_contingency(table).pvalue < FITS[1]


@pytest.mark.parametrize("n", SIZES)
def test_sequential_goes_round_the_data(n):
    assert torch.equal(SampleOrder(n, "sequential", seed=9).take(3 * n - 1, n + 2), (torch.arange(n + 2) - 1) % n)


@pytest.mark.parametrize("order", RANDOM_ORDERS)
def test_places_are_keyed_by_seed_and_block(order):
    blocks = [SampleOrder(N, order, seed).take(start, N) for seed in (0, 1) for start in (0, 10 * N)]
    assert len({tuple(block.tolist()) for block in blocks}) == 4


# --- noise ---


@pytest.mark.parametrize("start", [0, BLOCK - 3, 5 * BLOCK - 1])
def test_uniform_noise_is_that_of_the_contract(start):
    noise, labels = UniformNoise(0.5), torch.arange(6) % 3
    targets = noise.apply(labels, noise_of_classes(noise, seed=4).take(start, 6), 3)
    assert torch.equal(targets, uniform_targets(labels, 0.5, 3, seed=4, start=start))


@pytest.mark.parametrize("start", [0, BLOCK - 3, 5 * BLOCK - 1])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 2)], ids=str)
def test_gaussian_noise_of_real_labels_is_that_of_the_contract(shape, start):
    taken = NoiseStream(GaussianNoise(0.5), seed=4, shape=shape).take(start, 6)
    torch.testing.assert_close(taken, gaussian_noise(0.5, shape, seed=4, start=start, count=6))


def test_gaussian_noise_of_classes_has_a_column_for_each():
    taken = noise_of_classes(GaussianNoise(0.5), seed=4).take(BLOCK - 3, 6)
    torch.testing.assert_close(taken, gaussian_noise(0.5, (3,), seed=4, start=BLOCK - 3, count=6))


@pytest.mark.parametrize("noise", [NoNoise(), LabelSmoothing(0.5)], ids=name_of)
def test_where_nothing_is_drawn_rows_have_no_columns(noise):
    assert noise_of_classes(noise).take(BLOCK - 3, 6).shape == (6, 0)


@pytest.mark.parametrize("noise", RANDOM_NOISES, ids=name_of)
def test_noise_is_keyed_by_seed_and_block(noise):
    blocks = [noise_of_classes(noise, seed).take(start, 100) for seed in (0, 1) for start in (0, BLOCK, 2 * BLOCK)]
    assert not any(torch.equal(one, two) for i, one in enumerate(blocks) for two in blocks[:i])


@pytest.mark.parametrize("noise", RANDOM_NOISES, ids=name_of)
def test_noise_of_successive_blocks_is_uncorrelated(noise):
    stream = noise_of_classes(noise, classes=10)
    blocks = [stream.take(block * BLOCK, BLOCK).double().flatten() for block in range(4)]
    for one, two in pairwise(blocks):
        assert FITS[0] < stats.pearsonr(one, two).pvalue < FITS[1]


def test_noise_is_not_that_of_the_order():
    order = SampleOrder(3, "replacement", seed=0).take(0, 1000)
    assert not torch.equal(noise_of_classes(UniformNoise(1.0)).take(0, 1000), order)


# --- crops ---


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("start", [0, BLOCK - 3, 5 * BLOCK - 1])
def test_crops_are_those_of_the_contract(start, padding):
    taken = CropStream(2 * padding + 1, seed=4).take(start, 6)
    assert taken.dtype == torch.int64
    assert [tuple(row) for row in taken.tolist()] == [crop(start + i, padding, seed=4) for i in range(6)]


@pytest.mark.parametrize("start", [0, 5 * BLOCK - 40_000])
def test_all_crops_are_equally_likely(start):
    drawn = CropStream(9, seed=7).take(start, 60_000)
    counts = torch.bincount((drawn * torch.tensor([18, 2, 1])).sum(1), minlength=162)
    assert len(counts) == 162
    assert FITS[0] < stats.chisquare(counts.numpy()).pvalue < FITS[1]


@pytest.mark.parametrize("column", range(3), ids=["row", "column", "mirrored"])
def test_crops_of_successive_examples_are_independent(column):
    drawn = CropStream(9, seed=8).take(0, 60_000)[:, column]
    table = torch.bincount(drawn[::2] * 9 + drawn[1::2], minlength=81).view(9, 9).numpy()
    table = table[: drawn.max() + 1, : drawn.max() + 1]
    assert FITS[0] < stats.chi2_contingency(table).pvalue < FITS[1]


def test_crops_are_keyed_by_seed_and_block():
    blocks = [CropStream(9, seed).take(start, 100) for seed in (0, 1) for start in (0, BLOCK, 2 * BLOCK)]
    assert not any(torch.equal(one, two) for i, one in enumerate(blocks) for two in blocks[:i])


# --- noise that ends ---


def test_noise_acts_on_the_first_steps_only():
    schedule = NoiseSchedule(UniformNoise(1.0), 5, seed=0, num_classes=3)
    levels = [schedule.at(step).label_noise.p for step in range(8)]
    assert levels == [1.0] * 5 + [0.0] * 3


@pytest.mark.parametrize("noise_steps", [None, 10**9], ids=["for-ever", "longer-than-asked"])
def test_without_an_end_all_steps_have_noise(noise_steps):
    schedule = NoiseSchedule(GaussianNoise(0.5), noise_steps, seed=0, shape=(2,))
    (stretch,) = schedule.stretches(3, 10**6)
    assert (stretch.stream.label_noise.std, stretch.first, stretch.stop) == (0.5, 3, 10**6)
    labels = torch.randn(20, 2)
    expected = labels + NoiseStream(GaussianNoise(0.5), 0, (2,)).take(BLOCK - 7, 20)
    assert torch.equal(stretch.stream.targets(labels, BLOCK - 7, 20), expected)


@pytest.mark.parametrize("noise_steps", [0, 1, 4, 5, 9, 10, 20])
@pytest.mark.parametrize(("first", "stop"), [(0, 10), (4, 5), (5, 9)], ids=str)
def test_stretches_cover_each_step_with_its_noise(noise_steps, first, stop):
    schedule = NoiseSchedule(GaussianNoise(0.5), noise_steps, seed=0)
    stretches = schedule.stretches(first, stop)
    steps = [step for stretch in stretches for step in range(stretch.first, stretch.stop)]
    assert steps == list(range(first, stop))
    for stretch in stretches:
        assert all(schedule.at(step) is stretch.stream for step in range(stretch.first, stretch.stop))


@pytest.mark.parametrize("noise", [UniformNoise(1.0), LabelSmoothing(0.5), GaussianNoise(0.5)], ids=name_of)
def test_after_the_end_targets_keep_their_kind_and_are_clean(noise):
    labels = torch.arange(12) % 3
    noisy, quiet = (NoiseSchedule(noise, 1, 0, num_classes=3).at(step).targets(labels, 5, 12) for step in (0, 1))
    assert (noisy.dtype, noisy.shape) == (quiet.dtype, quiet.shape)
    clean = labels if noise.targets == "hard" else torch.eye(3)[labels]
    assert torch.equal(quiet, clean)
    assert not torch.equal(noisy, clean)


def test_a_noise_without_a_level_does_not_end():
    with pytest.raises(ValueError, match="NoNoise has no level"):
        NoiseSchedule(NoNoise(), 3, seed=0)
