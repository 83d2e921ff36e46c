"""Examples of a foreign DataLoader: which are measured, by which process, and which loaders are refused."""

from itertools import chain

import pandas as pd
import pytest
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, GradientNorm, HessianTrace, Performance, StopAtZeroError
from lnsgd.callbacks.base.measuring import _only
from lnsgd.data import InMemory
from lnsgd.measuring.loaders import LoaderBatches
from tests.callbacks.foreign_project import (
    ForeignModule,
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
def test_examples_of_the_sampler_are_read_once_in_sequence(given, expected):
    before = torch.get_rng_state()
    batches = LoaderBatches(given, "train")
    read = numbers(batches)
    assert flat(read) == list(expected)
    assert {len(batch) for batch in read[:-1]} <= {given.batch_size or 3}
    assert numbers(batches) == read
    assert torch.equal(torch.get_rng_state(), before)


def test_subset_is_the_same_as_for_data_of_lnsgd():
    data = InMemory((torch.arange(N).float(), torch.zeros(N, dtype=torch.long)))
    data.setup()
    (own,) = data.measurement_dataloader("train", 9)
    assert flat(numbers(LoaderBatches(DataLoader(NUMBERED, 4), "train", 9))) == own.inputs.tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 11])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(batch_size, world):
    given = DataLoader(NUMBERED, batch_size, shuffle=True)
    shares = [numbers(LoaderBatches(given, "train", 20, rank, world)) for rank in range(world)]
    whole = flat(numbers(LoaderBatches(given, "train", 20)))
    assert sorted(flat(flat(shares))) == sorted(whole)
    size = max(batch_size, world)
    for rank, share in enumerate(shares):
        assert share == [part for s in range(0, 20, size) if (part := whole[s : s + size][rank::world])]


def test_batches_in_memory_survive_changes_in_place():
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
REMEDY = r"give data=\{'train': DataLoader"

REFUSED = {
    "iterable": (DataLoader(Stream(), 4), "is a Stream, whose examples cannot be picked by index"),
    "list-of-batches": ([tensors(4, 1)], "is a list of 1 loaders"),
    "no-loader": ((batch for batch in [tensors(4, 1)]), "is a generator, not a torch DataLoader"),
    "own-sampler": (DataLoader(PAIRS, 4, sampler=Odd()), "is sampled by a Odd"),
    "own-batch-sampler": (DataLoader(PAIRS, batch_sampler=[[0, 1], [2, 3]]), "is batched by a list"),
    "unbatched": (DataLoader(PAIRS, batch_size=None), "is batched by batch_size=None"),
    "two-loaders": ({"a": DataLoader(PAIRS, 4), "b": DataLoader(PAIRS, 4)}, "is a dict of 2 loaders"),
}


class AnyBatch(Project):
    """A project that trains on constant zeros, because only the measuring matters."""

    def training_step(self, batch, batch_idx):
        return self(torch.zeros(1, 6)).sum()


def refused(tmp_path, message, callback, *loaders, kind=Project, **options):
    with pytest.raises(ValueError, match=message) as error:
        trainer_in(tmp_path, [callback], **options).fit(project(kind), *loaders)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_loaders_without_indexable_examples_are_refused(tmp_path, given, message):
    refused(tmp_path, f"the train data {message}.*{REMEDY}", ActiveNeurons(splits=["train"]), given, kind=AnyBatch)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        pytest.param(
            ActiveNeurons(),
            "the val data is not known to the Trainer; measure other splits, or give data=",
            id="no-val",
        ),
        pytest.param(ActiveNeurons(splits=["test"]), "the test data is not known to the Trainer", id="no-test"),
        pytest.param(Performance(examples=0), "examples = 0; give at least 1", id="no-examples"),
        pytest.param(
            HessianTrace(noisy_labels=True), "noisy_labels: Project has no attribute `label_noise`", id="no-noise"
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: batch[0]),
            "batch gives a Tensor, not a pair",
            id="layout",
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: (batch[0], 3)),
            "are Tensor and int, not tensors",
            id="int",
        ),
        pytest.param(
            Performance(splits=["train"], batch=lambda batch: (batch[0][:2], batch[1])), "have shape", id="lengths"
        ),
        pytest.param(
            ClassAssociation(splits=["train"], batch=lambda batch: (batch[0], batch[1].double())),
            "are not classes",
            id="real-labels",
        ),
    ],
)
def test_unfit_data_is_refused(tmp_path, callback, message):
    refused(tmp_path, message, callback, loader())


def test_keys_of_a_dictionary_batch_are_named_in_the_error(tmp_path):
    data = DataLoader([{"image": x, "target": y} for x, y in zip(*tensors(8, 1))], 4)

    class Targets(Project):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch["image"], batch["target"]), batch_idx)

    message = r"a batch is a dict with 'image', 'target', without 'labels' or 'label'; say where .* batch=lambda"
    refused(tmp_path, message, Performance(splits=["train"]), data, kind=Targets)


class OpenedInWorker(Dataset):
    """Has examples in a worker only after ``worker_init_fn`` has opened it there, as files of HDF5 have to be."""

    inputs = None

    def __len__(self):
        return 8

    def __getitem__(self, index):
        assert get_worker_info().dataset is self
        return self.inputs[index], index % 2


def open_in_worker(worker):
    dataset = get_worker_info().dataset
    assert isinstance(dataset, OpenedInWorker)
    dataset.inputs = torch.arange(16.0).reshape(8, 2)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_has_the_data_set_of_the_user(context):
    given = DataLoader(
        OpenedInWorker(), 4, num_workers=1, worker_init_fn=open_in_worker, multiprocessing_context=context
    )
    read = torch.cat([inputs for (inputs, _), _ in LoaderBatches(given, "train")])
    assert read.tolist() == torch.arange(16.0).reshape(8, 2).tolist()


class SeveralAtOnce(Dataset):
    """Returns the examples of a batch at once, and only so."""

    def __len__(self):
        return 8

    def __getitems__(self, indices):
        return [(torch.tensor(float(index)),) for index in indices]


def test_examples_that_a_data_set_returns_at_once_are_read():
    assert flat(numbers(LoaderBatches(DataLoader(SeveralAtOnce(), 4), "train"))) == list(range(8))


@pytest.mark.parametrize("wrap", [lambda one: [one], lambda one: {"a": one}, lambda one: CombinedLoader({"a": one})])
def test_a_single_loader_in_a_collection_is_taken(wrap):
    one = loader()
    assert _only(wrap(one), "train") is one


def test_several_loaders_are_refused_by_their_names():
    with pytest.raises(ValueError, match=r"a dict of 2 loaders \('a', 'b'\), and .* give data={'train': DataLoader"):
        _only(CombinedLoader({"a": loader(), "b": loader()}), "train")


def test_test_split_that_is_not_set_up_is_refused(tmp_path):
    class Unready(Project):
        def test_dataloader(self):
            return DataLoader(self.test_set, 4)

    message = "the test data is not there while training .AttributeError.*test_set.*data="
    refused(tmp_path, message, Performance(splits=["test"]), loader(), kind=Unready)


def test_unknown_split_is_refused_at_once():
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
def test_module_without_a_per_example_loss_is_refused(tmp_path, kind, make):
    refused(tmp_path, r"loss.*CrossEntropyLoss\(reduction='none'\)", make(), loader(), kind=kind)
    given = make(loss=torch.nn.CrossEntropyLoss(reduction="none"))
    trainer_in(tmp_path, [given], max_steps=1).fit(project(kind), loader())


def test_module_without_forward_is_refused(tmp_path):
    class Headless(ForeignModule):
        def training_step(self, batch, batch_idx):
            raise AssertionError

        def configure_optimizers(self):
            return None

    refused(tmp_path, "Headless has no `forward`.*outputs=", ActiveNeurons(), loader(), kind=Headless)


def test_module_without_forward_is_measured_by_outputs(tmp_path):
    class Stepping(ForeignModule):
        def __init__(self):
            super().__init__()
            self.net = project().net

        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    given = loader()
    right = (project().net.layers[0](given.dataset.tensors[0]) > 0).sum(1).double().mean().item()
    callback = ActiveNeurons(splits=["train"], outputs=lambda network, inputs: network.net(inputs))
    trainer = trainer_in(tmp_path, [callback], max_steps=1)
    trainer.fit(Stepping(), given)
    table = pd.read_parquet(tmp_path / "measures.parquet")
    first = table[(table.step == 0) & (table.measure == "active_count") & (table.layer == "net.layers.1")]
    assert first.value.item() == pytest.approx(right)
