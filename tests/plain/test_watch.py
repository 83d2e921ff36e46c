"""`lnsgd.Watch`: measuring along a plain training loop changes no bit of it."""

import gc

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader, Dataset

import lnsgd
from lnsgd import callbacks
from lnsgd.measuring import HessianTraceMeasurer, Measurer
from lnsgd.records.measures import COLUMNS, read_measures
from lnsgd.runs.folder import RunFolder
from lnsgd.schedules import at, log_spaced
from tests.plain.networks import LOSS, dataset, loaders, network

NAMES = ["performance", "active_neurons", "class_association", "distance_from_init", "gradient_norm", "top_eigenvalues"]
TRACE = HessianTraceMeasurer(examples=16, rtol=0.5, max_probes=16, method="hutchinson")


class Augmented(Dataset):
    """Examples with noise from the global generator, as data augmentation draws it."""

    def __init__(self):
        self.examples = dataset()

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        image, label = self.examples[index]
        return image + 0.1 * torch.randn(image.shape), label


def train(watched, steps=12, workers=0, out=None):
    """Train with dropout, BatchNorm, shuffling and augmentation; return the weights and the random state at the end."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    loader = DataLoader(Augmented(), 8, shuffle=True, num_workers=workers)
    watch = lnsgd.Watch(net, loader, [*NAMES, TRACE], every=3, loss=LOSS, out=out) if watched else None
    taken = 0
    while taken < steps:
        for images, labels in loader:
            optimizer.zero_grad()
            LOSS(net(images), labels).mean().backward()
            optimizer.step()
            taken += 1
            if watch:
                watch.step()
            if taken == steps:
                break
    if watch:
        watch.close()
    return {**net.state_dict(), "random": torch.get_rng_state()}, watch


@pytest.mark.parametrize("workers", [0, 1])
def test_training_is_the_same_in_every_bit(workers, tmp_path):
    (with_watch, watch), (without, _) = (
        train(True, workers=workers, out=tmp_path / "run"),
        train(False, workers=workers),
    )
    assert [name for name in without if not torch.equal(with_watch[name], without[name])] == []
    assert sorted(set(watch.frame()["step"])) == [0, 3, 6, 9, 12]


class Lightning(pl.LightningModule):
    """The network in Lightning, trained as `plainly_trained` does."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return LOSS(self(batch[0]), batch[1]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def chosen(**schedule):
    return [
        callbacks.Performance(["train"], loss=LOSS, **schedule),
        callbacks.ActiveNeurons(["train"], **schedule),
        callbacks.DistanceFromInit(**schedule),
        callbacks.HessianTrace(examples=16, rtol=0.5, max_probes=16, method="hutchinson", loss=LOSS, **schedule),
        callbacks.TopEigenvalues(examples=16, loss=LOSS, **schedule),
    ]


def test_callbacks_watch_and_measure_give_the_same_bits(tmp_path):
    """One network is trained in Lightning with callbacks, and in a plain loop with a watch; then measured once."""
    module = Lightning()
    trainer = pl.Trainer(
        max_steps=4,
        callbacks=chosen(every_n_steps=2),
        accelerator="cpu",
        default_root_dir=tmp_path / "lightning",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(5)  # of dropout
    trainer.fit(module, loaders(shuffle=False)["train"])
    recorded = read_measures(next((tmp_path / "lightning").rglob("measures.parquet")))

    net = Lightning().train()
    initial = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = net.configure_optimizers()
    torch.manual_seed(5)
    with lnsgd.Watch(net, loaders(shuffle=False)["train"], chosen(), every=2) as watch:
        for n, batch in zip(range(1, 5), loaders(shuffle=False)["train"]):
            optimizer.zero_grad()
            net.training_step(batch, 0).backward()
            optimizer.step()
            watch.step(n)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), module.parameters()))

    def sortable(table):
        keys = ["step", "measure", "split", "layer"]
        return table.sort_values(keys).reset_index(drop=True)[[*keys, "value", "stderr"]]

    pd.testing.assert_frame_equal(sortable(watch.frame()), sortable(recorded), check_exact=True)
    once = lnsgd.measure(net, loaders(shuffle=False)["train"], chosen(), init=initial)
    last = watch.frame().query("step == 4").reset_index(drop=True)[list(once)]
    pd.testing.assert_frame_equal(once, last, check_exact=True)


class Counter(Measurer):
    """Measures the bias of a network, of which it keeps a history."""

    headline = ("bias", "bias")

    def measure(self, subject, source, context):
        return [lnsgd.measuring.Measurement("bias", "", "", subject.module.bias.sum().item())]


def step(net):
    with torch.no_grad():
        net.bias += 1.0


def counted():
    net = nn.Linear(1, 1)
    nn.init.zeros_(net.bias)
    return net


def history(watch):
    table = watch.frame()
    return list(zip(table["step"], table["value"]))


SCHEDULES = {
    "every": (4, [0, 4, 8, 10]),
    "log": (log_spaced(1), [0, 1, 10]),
    "at": (at([7, 2]), [0, 2, 7, 10]),
    "none": (at([]), [0, 10]),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_it_measures_at_the_start_when_due_and_at_the_end(case):
    schedule, expected = SCHEDULES[case]
    net = counted()
    with lnsgd.Watch(net, measures=[Counter()], every=schedule) as watch:
        for n in range(1, 11):
            step(net)
            assert bool(watch.step(n)) == (n in expected[1:] and (n != 10 or case in ("log",)))
    assert history(watch) == [(n, float(n)) for n in expected]


def test_a_due_step_that_was_passed_is_measured():
    net = counted()
    with lnsgd.Watch(net, measures=[Counter()], every=5) as watch:
        for n in (3, 3, 6, 9, 14):  # the same number twice, as in the batches of an accumulated gradient
            step(net)
            watch.step(n)
    assert [n for n, _ in history(watch)] == [0, 6, 14]


def test_a_loop_that_calls_before_the_step_starts_at_zero():
    net = counted()
    watch = lnsgd.Watch(net, measures=[Counter()], every=2)
    for n in range(5):
        watch.step(n)
        step(net)
    assert history(watch) == [(0, 0.0), (2, 2.0), (4, 4.0)]


def test_wrong_numbers_of_steps_are_refused():
    net = counted()
    watch = lnsgd.Watch(net, measures=[Counter()], every=2)
    step(net)
    with pytest.raises(ValueError, match=r"step\(0\), but the weights have changed .* call step\(1\)"):
        watch.step(0)
    watch.step(3)
    with pytest.raises(ValueError, match=r"step\(2\) after step\(3\)"):
        watch.step(2)
    watch.close()
    with pytest.raises(ValueError, match="this Watch is closed"):
        watch.step(4)
    with pytest.raises(ValueError, match="give an integer >= 1"):
        lnsgd.Watch(net, measures=[Counter()], every=0)
    with pytest.raises(ValueError, match="ActiveNeurons has every_n_steps = 5, but a Watch has one schedule"):
        lnsgd.Watch(network(), loaders(), callbacks.ActiveNeurons(every_n_steps=5), every=2)
    with pytest.raises(ValueError, match="no folder to continue; give out="):
        lnsgd.Watch(net, measures=[Counter()], every=2, resume=True)


def test_the_table_is_a_record_of_a_run(tmp_path):
    net = counted()
    with lnsgd.Watch(net, measures=[Counter()], every=1, out=tmp_path / "run") as watch:
        step(net)
        watch.step(1, epoch=7)
    table = read_measures(tmp_path / "run" / "measures.parquet")
    pd.testing.assert_frame_equal(table, watch.frame())
    assert list(table) == list(COLUMNS)
    assert table["epoch"].tolist() == [0, 7]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["measures.parquet"]


def test_the_table_of_another_run_is_left_alone(tmp_path):
    first = lnsgd.Watch(counted(), measures=[Counter()], every=1, out=tmp_path / "run")
    second = lnsgd.Watch(counted(), measures=[Counter()], every=1, out=tmp_path / "run")  # at the same time
    first.step(1)
    first.close()
    third = lnsgd.Watch(counted(), measures=[Counter()], every=1, out=tmp_path / "run")  # later
    assert [watch.folder.name for watch in (first, second, third)] == ["run", "run-2", "run-3"]
    assert read_measures(first.folder / "measures.parquet")["step"].tolist() == [0, 1]


def test_a_watch_of_another_network_is_not_resumed(tmp_path):
    lnsgd.Watch(nn.Linear(2, 2), measures=["distance_from_init"], every=2, out=tmp_path).close()
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"initial weights in .* have no tensor '0.weight'; .* another network"):
        lnsgd.Watch(other, measures=["distance_from_init"], every=2, out=tmp_path, resume=True)


def test_a_resumed_watch_continues_the_table_and_the_initial_weights(tmp_path):
    net = network()
    names = ["distance_from_init", "weight_norms"]
    with lnsgd.Watch(net, measures=names, every=2, out=tmp_path) as watch:
        for n in range(1, 7):
            change(net)
            watch.step(n)
    whole = watch.frame()

    again = network()
    for _ in range(3):  # the checkpoint of step 3
        change(again)
    with lnsgd.Watch(again, measures=names, every=2, out=tmp_path, resume=True) as resumed:
        with pytest.raises(ValueError, match="does not know how many steps"):
            resumed.step()
        for n in range(4, 7):
            change(again)
            resumed.step(n)
    assert resumed.folder == tmp_path
    pd.testing.assert_frame_equal(resumed.frame(), whole)
    pd.testing.assert_frame_equal(read_measures(tmp_path / "measures.parquet"), whole)
    RunFolder(tmp_path).init.unlink()
    with pytest.raises(ValueError, match=r"no init\.safetensors with the initial weights θ₀; give init="):
        lnsgd.Watch(again, measures=names, every=2, out=tmp_path, resume=True)


def change(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.01


def test_an_error_in_the_loop_keeps_what_was_measured(tmp_path):
    net = counted()
    with pytest.raises(RuntimeError), lnsgd.Watch(net, measures=[Counter()], every=1, out=tmp_path) as watch:
        watch.step(1)
        raise RuntimeError
    assert read_measures(tmp_path / "measures.parquet")["step"].tolist() == [0, 1]
    assert [n for n, _ in history(watch)] == [0, 1]


def test_a_watch_that_is_forgotten_writes_its_table(tmp_path):
    watch = lnsgd.Watch(counted(), measures=[Counter()], every=1, out=tmp_path)
    watch.step(1)
    del watch
    gc.collect()
    assert read_measures(tmp_path / "measures.parquet")["step"].tolist() == [0, 1]


def test_a_layer_that_joins_counts_from_there(caplog):
    net = nn.Sequential(nn.Linear(2, 2))
    with lnsgd.Watch(net, measures=["distance_from_init"], every=1) as watch:
        net.append(nn.Linear(2, 1))
        watch.step(1)
        change(net)
        watch.step(2)
    assert watch.frame().query("layer == '1.weight'")["value"].tolist() == pytest.approx([0.0, 0.01 * 2**0.5], rel=1e-4)
    assert "1.weight, 1.bias joined the network" in caplog.text


def measured_by(rank, folder, world):
    """Measure in one of several processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    net = nn.parallel.DistributedDataParallel(network().double())
    with lnsgd.Watch(net, loaders(), [*NAMES, TRACE], every=2, loss=LOSS, out=folder / "run") as watch:
        for n in range(1, 4):
            change(net)
            watch.step(n)
    watch.frame().to_parquet(folder / f"of_{rank}.parquet")
    dist.destroy_process_group()


def test_two_processes_measure_what_one_does(tmp_path):
    start_processes(measured_by, args=(tmp_path, 2), nprocs=2, start_method="fork")
    net = network().double()
    with lnsgd.Watch(net, loaders(), [*NAMES, TRACE], every=2, loss=LOSS) as watch:
        for n in range(1, 4):
            change(net)
            watch.step(n)
    written = read_measures(tmp_path / "run" / "measures.parquet")
    pd.testing.assert_frame_equal(written, watch.frame(), rtol=1e-6)
    for rank in range(2):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"of_{rank}.parquet"), written, check_exact=True)
