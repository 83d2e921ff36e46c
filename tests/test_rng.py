"""Keyed generators: equal keys give equal streams, other keys independent ones; global state is not changed."""

import hashlib
import random
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lnsgd.rng import forked, generator, preserved
from tests.tolerances import STANDARD_ERRORS

# Written out here because the names are part of the keys: another name changes every run.
PURPOSES = ("init", "order", "noise", "augmentation", "probes", "subset", "corruption", "dropout")


def numbers(*key, n=100):
    return torch.rand(n, generator=generator(*key))


def global_states():
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


def draw_from_globals():
    return random.random(), np.random.random(3).tolist(), torch.rand(3).tolist(), torch.randn(3).tolist()


def numpy_twister(seed, purpose, *counters, n):
    """Draw from NumPy's Mersenne Twister, seeded by the hash of the key, with torch's map of 32-bit words to float32.

    The text of the key is written out: another text would change every run.
    """
    text = f"({', '.join([str(seed), repr(purpose), *map(str, counters)])})"
    digest = hashlib.shake_128(text.encode()).digest(4 * 624)
    words = [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(624)]
    words[0] |= 2**31  # the only bit of the first word that matters, and never 0
    twister = np.random.MT19937()
    key = {"key": np.array(words, dtype=np.uint32), "pos": 624}
    twister.state = {"bit_generator": "MT19937", "state": key}
    return (twister.random_raw(n) % 2**24).astype(np.float32) / np.float32(2**24)


# One key, and another that differs in one respect.
DIFFERENT_KEYS = {
    "seed": ((0, "noise", 1, 2), (1, "noise", 1, 2)),
    "seed above bit 32": ((5, "noise", 1, 2), (5 + 2**32, "noise", 1, 2)),  # equal streams with manual_seed
    "seed above bit 64": ((5, "noise", 1, 2), (5 + 2**64, "noise", 1, 2)),
    "purpose": ((0, "noise", 1, 2), (0, "order", 1, 2)),
    "first counter": ((0, "noise", 1, 2), (0, "noise", 2, 2)),
    "last counter": ((0, "noise", 1, 2), (0, "noise", 1, 3)),
    "order of counters": ((0, "noise", 1, 2), (0, "noise", 2, 1)),
    "one more counter": ((0, "noise", 1), (0, "noise", 1, 0)),
    "no counter": ((0, "noise"), (0, "noise", 0)),
    "seed for counter": ((0, "noise", 1), (1, "noise", 0)),
    "counter above bit 32": ((0, "noise", 2**32), (0, "noise", 0, 1)),  # equal streams with SeedSequence
    "digits of counters": ((0, "noise", 1, 23), (0, "noise", 12, 3)),
}


@given(st.integers(0, 2**100), st.sampled_from(PURPOSES), st.lists(st.integers(0, 2**31), max_size=3))
@settings(max_examples=30, deadline=None)
def test_same_key_same_stream(seed, purpose, counters):
    assert torch.equal(numbers(seed, purpose, *counters), numbers(seed, purpose, *counters))


@pytest.mark.parametrize("one, other", DIFFERENT_KEYS.values(), ids=DIFFERENT_KEYS)
def test_different_key_different_stream(one, other):
    assert not torch.equal(numbers(*one), numbers(*other))


def test_every_purpose_has_its_own_stream():
    streams = [numbers(0, purpose, 3) for purpose in PURPOSES]
    assert not any(torch.equal(a, b) for a, b in combinations(streams, 2))


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("seed, counters", [(0, ()), (7, (3, 12)), (2**40 + 1, (5,))], ids=["0", "7-3-12", "2^40+1-5"])
def test_stream_is_numpys_mersenne_twister(seed, purpose, counters):
    n = 2000  # over three times the 624 words of state: every word of it matters
    expected = numpy_twister(seed, purpose, *counters, n=n)
    np.testing.assert_array_equal(numbers(seed, purpose, *counters, n=n).numpy(), expected)


@pytest.mark.parametrize("integer", [np.int64, np.uint32, np.int32], ids=lambda integer: integer.__name__)
def test_numpy_integers_are_the_same_key(integer):
    assert torch.equal(numbers(integer(3), "noise", integer(1), integer(2)), numbers(3, "noise", 1, 2))


def test_generators_of_one_key_are_separate():
    one, other = generator(0, "noise", 1), generator(0, "noise", 1)
    torch.rand(10, generator=one)
    assert torch.equal(torch.rand(10, generator=other), numbers(0, "noise", 1, n=10))


def test_generator_leaves_global_state_alone():
    before = global_states()
    numbers(0, "noise", 1)
    assert global_states() == before


@pytest.mark.parametrize("make", [generator, lambda *key: forked(*key).__enter__()], ids=["generator", "forked"])
@pytest.mark.parametrize(
    "key, message",
    [((0, "noize"), "'noize'.*noise"), ((-3, "noise"), "-3")],
    ids=["unknown purpose", "negative seed"],
)
def test_bad_keys_are_refused(make, key, message):
    with pytest.raises(ValueError, match=message):
        make(*key)


def test_forked_torch_stream_is_that_of_generator():
    torch.randn(1)  # leaves a second normal number cached in the global state; it must not get in
    with forked(3, "init", 4):
        inside = torch.rand(50), torch.randn(5), torch.randn(50)
    own = generator(3, "init", 4)
    outside = torch.rand(50, generator=own), torch.randn(5, generator=own), torch.randn(50, generator=own)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside))


def drawn_inside(seed, counter):
    draw_from_globals()  # the state outside must not matter
    with forked(seed, "init", counter):
        return draw_from_globals()


@pytest.mark.parametrize("other", [(1, 0), (0, 1)], ids=["seed", "counter"])
def test_forked_keys_python_numpy_and_torch(other):
    assert drawn_inside(0, 0) == drawn_inside(0, 0)
    assert all(a != b for a, b in zip(drawn_inside(0, 0), drawn_inside(*other)))


@pytest.mark.parametrize("fails", [False, True], ids=["normal exit", "exception"])
@pytest.mark.parametrize("context", [preserved, lambda: forked(0, "probes")], ids=["preserved", "forked"])
def test_global_state_is_restored(context, fails):
    before = global_states()
    try:
        with context():
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)
            draw_from_globals()
            assert all(now != then for now, then in zip(global_states(), before))
            if fails:
                raise RuntimeError("inside")
    except RuntimeError as error:
        assert str(error) == "inside"
    assert global_states() == before


def test_contexts_pass_exceptions_on():
    with pytest.raises(KeyError), preserved():
        raise KeyError
    with pytest.raises(KeyError), forked(0, "init"):
        raise KeyError


def test_preserved_starts_from_the_global_state():
    with preserved():
        inside = draw_from_globals()
    assert inside == draw_from_globals()


# Statistics, with fixed seeds. Two-sided: numbers that are too even are as wrong as too uneven ones.


def uniformity(sample, bins=50):
    """Return the chi-square of uniform numbers as a standard normal deviate."""
    counts = np.histogram(sample, bins=bins, range=(0, 1))[0]
    statistic = ((counts - len(sample) / bins) ** 2).sum() / (len(sample) / bins)
    return stats.norm.ppf(stats.chi2.cdf(statistic, bins - 1))


def test_one_stream_is_uniform():
    assert abs(uniformity(numbers(0, "noise", 0, n=50_000).numpy())) < STANDARD_ERRORS


@pytest.mark.parametrize("position", [0, 1, 99])
@pytest.mark.parametrize("vary", ["seed", "epoch", "batch"])
def test_one_position_is_uniform_over_neighbouring_keys(vary, position):
    keys = {
        "seed": [(i, "noise", 0, 0) for i in range(2000)],
        "epoch": [(0, "noise", i, 0) for i in range(2000)],
        "batch": [(0, "noise", 0, i) for i in range(2000)],
    }
    sample = [numbers(*key)[position].item() for key in keys[vary]]
    assert abs(uniformity(np.array(sample))) < STANDARD_ERRORS


@pytest.mark.parametrize(
    "key",
    [(1, "noise", 0, 0), (0, "order", 0, 0), (0, "noise", 1, 0), (0, "noise", 0, 1), (2**32, "noise", 0, 0)],
    ids=["seed", "purpose", "epoch", "batch", "seed above bit 32"],
)
@pytest.mark.parametrize("lag", [0, 1])
def test_neighbouring_streams_are_uncorrelated(key, lag):
    n = 20_000
    one, other = numbers(0, "noise", 0, 0, n=n), numbers(*key, n=n)
    correlation = stats.pearsonr(one[lag:], other[: n - lag]).statistic
    assert abs(correlation) * np.sqrt(n - lag) < STANDARD_ERRORS


def test_neighbouring_streams_are_independent():
    # Also of kinds of dependence without correlation: counts in a 10 × 10 grid of pairs of numbers.
    n = 20_000
    one, other = numbers(0, "noise", 0, 0, n=n).numpy(), numbers(0, "noise", 0, 1, n=n).numpy()
    counts = np.histogram2d(one, other, bins=10, range=[(0, 1), (0, 1)])[0]
    result = stats.chi2_contingency(counts)
    assert abs(stats.norm.ppf(result.pvalue)) < STANDARD_ERRORS
