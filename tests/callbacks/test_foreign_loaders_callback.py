"""Which examples of anyone's DataLoader are measured, by which process, and which loaders are refused."""

from itertools import chain

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, GradientNorm, HessianTrace, Performance, StopAtZeroError
from lnsgd.callbacks.loader_batches import LoaderBatches
from lnsgd.data import InMemory
from tests.callbacks.foreign_project import (
    DictProject,
    Examples,
    Project,
    loader,
    project,
    tensors,
    trainer_in,
)

N = 23
NUMBERED = TensorDataset(torch.arange(N))
WEIGHTS = [0.0, 1.0, 2.0] + [0.0] * (N - 3)
SPLIT = [5, 3, 19, 4]


def flat(lists):
    return list(chain.from_iterable(lists))


def numbers(batches):
    return [batch.tolist() for (batch,), _ in batches]


LOADERS = {
    "sequential": (DataLoader(NUMBERED, 5), range(N)),
    "shuffled": (DataLoader(NUMBERED, 5, shuffle=True, drop_last=True), range(N)),
    "replacement": (DataLoader(NUMBERED, 5, sampler=RandomSampler(NUMBERED, True, 100)), range(N)),
    "subset": (DataLoader(Subset(NUMBERED, SPLIT), 5, shuffle=True), SPLIT),
    "subset-sampler": (DataLoader(NUMBERED, 5, sampler=SubsetRandomSampler(SPLIT)), SPLIT),
    "weighted": (DataLoader(NUMBERED, 5, sampler=WeightedRandomSampler(WEIGHTS, 9)), [1, 2]),
    "batch-sampler": (DataLoader(NUMBERED, batch_sampler=BatchSampler(SubsetRandomSampler(SPLIT), 3, True)), SPLIT),
    "distributed": (DataLoader(NUMBERED, 5, sampler=DistributedSampler(NUMBERED, 2, 1)), range(N)),
    "distributed-sampler": (
        DataLoader(NUMBERED, 5, sampler=DistributedSamplerWrapper(SubsetRandomSampler(SPLIT), num_replicas=2, rank=1)),
        SPLIT,
    ),
    "workers": (DataLoader(NUMBERED, 5, shuffle=True, num_workers=1), range(N)),
}


@pytest.mark.parametrize(("given", "expected"), LOADERS.values(), ids=LOADERS)
def test_the_examples_of_the_sampler_once_and_in_sequence(given, expected):
    before = torch.get_rng_state()
    batches = LoaderBatches(given, "train")
    read = numbers(batches)
    assert flat(read) == list(expected)
    assert {len(batch) for batch in read[:-1]} <= {given.batch_size or 3}
    assert numbers(batches) == read
    assert torch.equal(torch.get_rng_state(), before)


def test_the_subset_is_that_of_lnsgds_own_data():
    data = InMemory((torch.arange(N).float(), torch.zeros(N, dtype=torch.long)))
    data.setup()
    (own,) = data.measurement_dataloader("train", 9)
    assert flat(numbers(LoaderBatches(DataLoader(NUMBERED, 4), "train", 9))) == own.inputs.tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 11])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch(batch_size, world):
    given = DataLoader(NUMBERED, batch_size, shuffle=True)
    shares = [numbers(LoaderBatches(given, "train", 20, rank, world)) for rank in range(world)]
    whole = flat(numbers(LoaderBatches(given, "train", 20)))
    assert sorted(flat(flat(shares))) == sorted(whole)
    size = max(batch_size, world)
    for rank, share in enumerate(shares):
        assert share == [part for s in range(0, 20, size) if (part := whole[s : s + size][rank::world])]


def test_what_is_kept_survives_changes_in_place():
    batches = LoaderBatches(DataLoader(TensorDataset(torch.ones(4)), 2), "train")
    for _ in range(2):
        for (batch,), _ in batches:
            assert batch.tolist() == [1, 1]
            batch.zero_()


class Stream(IterableDataset):
    def __iter__(self):
        return zip(*tensors(8, 1))


class Odd(Sampler):
    def __iter__(self):
        return iter([1, 3, 5])

    def __len__(self):
        return 3


PAIRS = TensorDataset(*tensors(16, 1))
REMEDY = r"give the callback data=\{'train': DataLoader"

REFUSED = {
    "iterable": (DataLoader(Stream(), 4), "is a Stream, whose examples cannot be picked by index"),
    "list-of-batches": ([tensors(4, 1)], "is a list of 1 loaders"),
    "no-loader": ((batch for batch in [tensors(4, 1)]), "is a generator, no torch DataLoader"),
    "own-sampler": (DataLoader(PAIRS, 4, sampler=Odd()), "is sampled by a Odd"),
    "own-batch-sampler": (DataLoader(PAIRS, batch_sampler=[[0, 1], [2, 3]]), "is batched by a list"),
    "unbatched": (DataLoader(PAIRS, batch_size=None), "is batched by batch_size=None"),
    "two-loaders": ({"a": DataLoader(PAIRS, 4), "b": DataLoader(PAIRS, 4)}, "is a dict of 2 loaders"),
}


class AnyBatch(Project):
    """Trains on nothing: what is measured is all that matters."""

    def training_step(self, batch, batch_idx):
        return self(torch.zeros(1, 6)).sum()


def refused(tmp_path, message, callback, *loaders, kind=Project, **options):
    with pytest.raises(ValueError, match=message) as error:
        trainer_in(tmp_path, [callback], **options).fit(project(kind), *loaders)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_loaders_that_do_not_say_their_examples_are_refused(tmp_path, given, message):
    refused(tmp_path, f"the train data {message}.*{REMEDY}", ActiveNeurons(splits=["train"]), given, kind=AnyBatch)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        pytest.param(
            ActiveNeurons(),
            "the val data is not known to the Trainer; measure other splits, or give the callback data=",
            id="no-val",
        ),
        pytest.param(ActiveNeurons(splits=["test"]), "the test data is not known to the Trainer", id="no-test"),
        pytest.param(Performance(examples=0), "examples = 0; give at least 1", id="no-examples"),
        pytest.param(
            HessianTrace(noisy_labels=True), "noisy_labels: Project has no attribute `label_noise`", id="no-noise"
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: batch[0]),
            "batch gives a Tensor, no pair",
            id="layout",
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: (batch[0], 3)),
            "are Tensor and int, not two tensors",
            id="int",
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: (batch[0][:2], batch[1])), "have shape", id="lengths"
        ),
        pytest.param(
            ClassAssociation(splits=["train"], batch=lambda batch: (batch[0], batch[1].double())),
            "are no classes",
            id="real-labels",
        ),
    ],
)
def test_data_that_cannot_be_measured_on_is_refused(tmp_path, callback, message):
    refused(tmp_path, message, callback, loader())


def test_words_in_place_of_places_are_named(tmp_path):
    data = DataLoader(Examples(*tensors(8, 1), as_dict=True), 4)
    message = r"a batch is a dict of 'pixel_values', 'labels'; say where .* batch=lambda"
    refused(tmp_path, message, Performance(splits=["train"]), data, kind=DictProject)


def test_a_data_module_that_is_not_set_up_for_testing(tmp_path):
    class Unready(Project):
        def test_dataloader(self):
            return DataLoader(self.test_set, 4)

    message = "the test data is not there while training .AttributeError.*test_set.*data="
    refused(tmp_path, message, Performance(splits=["test"]), loader(), kind=Unready)


def test_an_unknown_split_is_refused_at_once():
    with pytest.raises(ValueError, match="data for 'valid'; its keys must be train, val or test"):
        Performance(data={"valid": loader()})


class MeanLoss(Project):
    def __init__(self):
        super().__init__()
        self.loss = torch.nn.CrossEntropyLoss()


class NoLoss(Project):
    def __init__(self):
        super().__init__()
        self.criterion = self.loss
        del self.loss

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1]).mean()


class BatchLoss(Project):
    def __init__(self):
        super().__init__()
        del self.loss
        self.criterion = torch.nn.CrossEntropyLoss()

    def loss(self, batch):
        return self.criterion(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)


@pytest.mark.parametrize("kind", [MeanLoss, NoLoss, BatchLoss])
@pytest.mark.parametrize(
    "make",
    [lambda **o: Performance(splits=["train"], **o), GradientNorm, StopAtZeroError],
    ids=["loss", "norm", "rule"],
)
def test_a_module_without_a_per_example_loss(tmp_path, kind, make):
    refused(tmp_path, r"loss.*CrossEntropyLoss\(reduction='none'\)", make(), loader(), kind=kind)
    given = make(loss=torch.nn.CrossEntropyLoss(reduction="none"))
    trainer_in(tmp_path, [given], max_steps=1).fit(project(kind), loader())


def test_a_module_without_forward(tmp_path):
    class Headless(pl.LightningModule):
        def training_step(self, batch, batch_idx):
            raise AssertionError

        def configure_optimizers(self):
            return None

    refused(tmp_path, "Headless has no `forward`", ActiveNeurons(), loader(), kind=Headless)
