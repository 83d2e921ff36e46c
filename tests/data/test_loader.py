"""The loader that lives on the device, against a list of examples."""

import pickle
from itertools import chain, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lnsgd.data import Batch, DeviceLoader, LabelledTensors
from tests.reference.streams import places

ORDERS = ("shuffle", "replacement", "sequential")

# A goodness-of-fit test fails on a misfit and on a fit too good to be random.
FITS = (1e-4, 1 - 1e-4)

N, BATCH = 23, 5  # five batches, the last of three


def loader(n=N, batch_size=BATCH, order="shuffle", transform=lambda x: x, **options) -> DeviceLoader:
    """Over n examples, of which example i has the input i and the label 100 + i."""
    data = LabelledTensors(torch.arange(n), 100 + torch.arange(n))
    return DeviceLoader(data, transform, batch_size, order, **options)


def ids(batches) -> list[list[int]]:
    return [batch.inputs.tolist() for batch in batches]


def epoch(a_loader: DeviceLoader, number: int) -> list[list[int]]:
    a_loader.set_epoch(number)
    return ids(a_loader)


def flat(batches: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


# --- order ---


@pytest.mark.parametrize(("n", "batch_size"), [(23, 5), (20, 5), (23, 1), (23, 23), (23, 100), (1, 1)])
@pytest.mark.parametrize("order", ORDERS)
def test_all_batches_but_the_last_are_full(order, n, batch_size):
    the_loader = loader(n, batch_size, order)
    batches = list(the_loader)
    sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
    assert [len(batch.labels) for batch in batches] == [batch.global_size for batch in batches] == sizes
    assert len(the_loader) == len(sizes)


@pytest.mark.parametrize("number", range(4))
def test_a_shuffled_epoch_has_every_example_once(number):
    assert sorted(flat(epoch(loader(), number))) == list(range(N))


@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_order_is_keyed_by_seed_and_epoch(order):
    orders = {
        (seed, number): flat(epoch(loader(order=order, seed=seed), number)) for seed in (0, 1) for number in (0, 1)
    }
    assert len(set(map(tuple, orders.values()))) == 4
    the_loader = loader(order=order, seed=1)
    for number in (1, 0, 1):  # whatever was iterated before
        assert flat(epoch(the_loader, number)) == orders[1, number]


@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_order_does_not_depend_on_processes_and_batch_size(order):
    assert flat(ids(loader(batch_size=5, order=order))) == flat(ids(loader(batch_size=7, order=order)))


@pytest.mark.parametrize(("n", "batch_size"), [(23, 5), (20_000, 7_000)], ids=["epochs-of-a-block", "blocks"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_is_a_part_of_the_keyed_order(order, n, batch_size):
    the_loader = loader(n, batch_size, order, seed=3)
    for number in (0, 2):
        taken = flat(epoch(the_loader, number))
        assert taken[:23] == places(number * n, 23, n, order, seed=3).tolist()
        assert taken[-23:] == places((number + 1) * n - 23, 23, n, order, seed=3).tolist()


@pytest.mark.parametrize("batch_size", [N, N + 1])
def test_a_full_batch_is_in_the_order_of_the_data(batch_size):
    the_loader = loader(batch_size=batch_size, order="shuffle")
    assert epoch(the_loader, 0) == epoch(the_loader, 1) == [list(range(N))]


def test_a_full_batch_with_replacement_is_random():
    batches = [epoch(loader(batch_size=N, order="replacement"), number) for number in (0, 1)]
    assert batches == [[places(number * N, N, N, "replacement", seed=0).tolist()] for number in (0, 1)]


def test_shuffled_positions_are_uniform():
    n, epochs = 8, 1600
    the_loader = loader(n, n // 2)  # a full batch is not shuffled
    orders = torch.tensor([flat(epoch(the_loader, number)) for number in range(epochs)])
    counts = torch.stack([torch.bincount(orders[:, place], minlength=n) for place in range(n)]).double()
    # Rows and columns of the table add up to the number of epochs: (n − 1)² degrees of freedom,
    # and the statistic of a table of permutation counts is too large by n/(n − 1).
    statistic = ((counts - epochs / n).square() / (epochs / n)).sum().item() * (n - 1) / n
    assert FITS[0] < stats.chi2.sf(statistic, (n - 1) ** 2) < FITS[1]


def test_draws_with_replacement_are_uniform_and_independent():
    n, epochs = 10, 1000
    the_loader = loader(n, n, "replacement")
    draws = torch.tensor([flat(epoch(the_loader, number)) for number in range(epochs)])
    assert draws.shape == (epochs, n)
    assert FITS[0] < stats.chisquare(torch.bincount(draws.flatten(), minlength=n).numpy()).pvalue < FITS[1]
    pairs = draws[:, ::2] * n + draws[:, 1::2]  # neighbours within an epoch; a permutation never has i, i
    table = torch.bincount(pairs.flatten(), minlength=n * n).view(n, n).numpy()
    assert FITS[0] < stats.chi2_contingency(table).pvalue < FITS[1]


def test_sequential_is_the_order_of_the_data_in_every_epoch():
    the_loader = loader(order="sequential", seed=7)
    assert flat(epoch(the_loader, 0)) == flat(epoch(the_loader, 1)) == list(range(N))


@pytest.mark.parametrize("order", ORDERS)
def test_a_subset_is_gathered_from_the_whole_pool(order):
    rows = torch.tensor([8, 3, 3, 40, 0, 17, 22])
    whole = LabelledTensors(torch.arange(50), 100 + torch.arange(50))
    given = list(DeviceLoader(whole[rows], lambda x: x, 3, order, seed=1))
    assert flat(ids(given)) == rows[places(0, 7, 7, order, seed=1)].tolist()
    assert all(torch.equal(batch.labels, 100 + batch.inputs) for batch in given)


@pytest.mark.parametrize("order", ORDERS)
def test_labels_stay_with_their_inputs_and_inputs_are_transformed(order):
    for batch in loader(order=order, transform=lambda x: x.double() / 2):
        assert isinstance(batch, Batch)
        assert batch.inputs.dtype == torch.float64
        assert torch.equal(batch.labels, 100 + (2 * batch.inputs).long())


def test_nothing_is_drawn_before_the_first_batch():
    the_loader = loader()
    iterator = iter(the_loader)
    the_loader.set_epoch(3)
    assert ids(iterator) == epoch(loader(), 3)


# --- shards ---


def assert_shards_partition(n: int, batch_size: int, order: str, world_size: int) -> None:
    whole = list(loader(n, batch_size, order))
    shards = [list(loader(n, batch_size, order, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(shard) for shard in shards} == {len(whole)}  # all processes take the same number of steps
    for k, batch in enumerate(whole):
        merged = torch.full_like(batch.inputs, -1)
        for rank, shard in enumerate(shards):
            merged[rank::world_size] = shard[k].inputs  # fails where a share is padded or cut
            assert torch.equal(shard[k].labels, 100 + shard[k].inputs)
            assert shard[k].global_size == len(batch.labels)
        assert torch.equal(merged, batch.inputs)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("n", "batch_size"),
    [(24, 6), (23, 5), (23, 6), (16, 5), (3, 1)],
    ids=["even", "odd-batches", "odd-rest", "a-rank-gets-nothing-of-the-last-batch", "batch-of-one"],
)
def test_shards_partition_every_global_batch(n, batch_size, order, world_size):
    assert_shards_partition(n, batch_size, order, world_size)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.sampled_from(ORDERS), st.integers(1, 5))
def test_shards_partition_any_global_batch(n, batch_size, order, world_size):
    assert_shards_partition(n, batch_size, order, world_size)


def test_an_empty_share_has_the_usual_shape_and_type():
    first, *_, last = loader(16, 5, transform=lambda x: x.double().view(-1, 1, 1), rank=1, world_size=2)
    assert last.inputs.shape == (0, 1, 1)
    assert last.labels.shape == (0,)
    assert (last.inputs.dtype, last.labels.dtype) == (first.inputs.dtype, first.labels.dtype)
    assert last.global_size == 1


# --- resume ---


def stopped_after(given_out: int, number: int = 2, **options) -> dict:
    """State of a loader of which some batches were given out; by way of a file, as in a checkpoint."""
    the_loader = loader(**options)
    the_loader.set_epoch(number)
    list(islice(the_loader, given_out))
    return pickle.loads(pickle.dumps(the_loader.state_dict()))


def resumed(state: dict, **options) -> DeviceLoader:
    the_loader = loader(**options)
    the_loader.load_state_dict(state)
    return the_loader


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("given_out", range(6))
def test_a_resumed_epoch_continues_with_the_next_batch(given_out, order, rank):
    options = {"order": order, "seed": 4, "rank": rank, "world_size": 2}
    rest = ids(resumed(stopped_after(given_out, **options), **options))
    assert rest == epoch(loader(**options), 2)[given_out:]


@pytest.mark.parametrize("given_out", [0, 2, 5])
def test_the_epoch_after_a_resumed_epoch_is_whole(given_out):
    the_loader = resumed(stopped_after(given_out))
    list(the_loader)
    assert epoch(the_loader, 3) == epoch(loader(), 3)


def test_a_resumed_epoch_can_be_stopped_and_resumed_again():
    the_loader = resumed(stopped_after(1))
    list(islice(the_loader, 2))
    assert the_loader.state_dict() == stopped_after(3)
    assert ids(resumed(the_loader.state_dict())) == epoch(loader(), 2)[3:]


def test_setting_the_same_epoch_keeps_the_position():
    the_loader = resumed(stopped_after(3))
    assert epoch(the_loader, 2) == epoch(loader(), 2)[3:]


@pytest.mark.parametrize("other", [0, 3])
def test_setting_another_epoch_starts_at_its_first_batch(other):
    the_loader = resumed(stopped_after(3))
    assert epoch(the_loader, other) == epoch(loader(), other)


# --- under Lightning, and errors ---


def test_lightning_finds_set_epoch():
    the_loader = loader()
    the_loader.sampler.set_epoch(2)
    assert ids(the_loader) == epoch(loader(), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "the data set is empty"),
        ({"batch_size": 0}, "batch_size = 0; it must be at least 1"),
        ({"batch_size": -3}, "batch_size = -3; it must be at least 1"),
    ],
    ids=["no-examples", "batch-of-none", "negative-batch"],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        loader(**options)
