"""What is measured is what is trained: schedules under several optimizers, fine-tuning, lazy modules, dry runs."""

import copy
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import BaseFinetuning, ModelCheckpoint, ModelPruning
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, GradientNorm, WeightNorms
from tests.tolerances import EXACT

APPROX = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}
BATCHES = 6


def loader():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8 * BATCHES, 6, generator=generator, dtype=torch.float64)
    return DataLoader(TensorDataset(inputs, torch.randint(3, (8 * BATCHES,), generator=generator)), 8)


class Plain(pl.LightningModule):
    """A module of another project; its forward pass goes through ``net``."""

    def __init__(self, net=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = (net or nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))).double()
        self.loss = nn.CrossEntropyLoss(reduction="none")

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1, momentum=0.9)


class TwoOptimizers(Plain):
    """Each layer has an optimizer of its own, and each batch takes a step of both, as a GAN does."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[k].parameters(), 0.1) for k in (0, 2)]


def trainer_in(folder, callbacks, **options):
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=callbacks, **settings | options)


def table(folder):
    return pd.read_parquet(Path(folder) / "measures.parquet")


def values(folder, measure="distance_from_init", layer=""):
    found = table(folder)
    return found[(found.measure == measure) & (found.layer == layer)].set_index("step").value


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"at_steps": [1, 3, 5]}, [0, 2, 4, 6, 12]),
        ({"at_steps": [4, 5, 6]}, [0, 4, 6, 12]),
        ({"every_n_steps": 3}, [0, 4, 6, 10, 12]),
        ({"every_n_steps": 1}, [0, 2, 4, 6, 8, 10, 12]),
        ({"log_spaced": 3}, [0, 2, 6, 10, 12]),
        ({"every_n_steps": 100}, [0, 12]),
    ],
    ids=str,
)
def test_a_due_step_that_a_batch_passes_is_measured_after_the_batch(tmp_path, schedule, expected):
    trainer_in(tmp_path, [GradientNorm(examples=None, **schedule)]).fit(TwoOptimizers(), loader())
    assert sorted(set(table(tmp_path).step)) == expected


def test_two_optimizers_end_at_the_first_step_beyond_max_steps(tmp_path):
    trainer = trainer_in(tmp_path, [DistanceFromInit(every_n_epochs=5)], max_steps=5, max_epochs=-1)
    trainer.fit(TwoOptimizers(), loader())
    assert trainer.global_step == 6
    assert list(values(tmp_path).index) == [0, 6]


@pytest.mark.parametrize("schedule", [{"every_n_steps": 1}, {"at_steps": [1, 2]}], ids=str)
def test_with_accumulated_gradients_steps_are_those_of_the_optimizer(tmp_path, schedule):
    weights = {}

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            weights[trainer.global_step] = [p.detach().clone() for p in module.parameters()]

    module = Plain()
    start = [p.detach().clone() for p in module.parameters()]
    trainer_in(tmp_path, [Recorder(), DistanceFromInit(**schedule)], accumulate_grad_batches=3).fit(module, loader())
    found = values(tmp_path)
    assert list(found.index) == [0, 1, 2]
    for step, at in weights.items():
        expected = sum((p - q).square().sum() for p, q in zip(at, start)).sqrt().item()
        assert found[step] == pytest.approx(expected, **APPROX)


def test_a_second_fit_measures_from_the_same_initial_weights(tmp_path):
    module, callback = Plain(), DistanceFromInit()
    start = copy.deepcopy(module)
    trainer = trainer_in(tmp_path, [callback])
    trainer.fit(module, loader())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader())
    expected = sum((p - q).square().sum() for p, q in zip(module.parameters(), start.parameters())).sqrt().item()
    assert list(values(tmp_path).index) == [0, BATCHES, 2 * BATCHES]
    assert values(tmp_path)[2 * BATCHES] == pytest.approx(expected, **APPROX)


class UnfreezeInEpochOne(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


class FreezeInEpochOne(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            module.net[0].requires_grad_(False)


def distance(module, start):
    moved = ((p - start[name]).square().sum() for name, p in module.named_parameters())
    return sum(moved).sqrt().item()


@pytest.mark.parametrize("kind", [UnfreezeInEpochOne, FreezeInEpochOne])
def test_distance_is_over_all_weights_while_layers_are_frozen_and_unfrozen(tmp_path, kind):
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    expected = {0: 0.0}

    class Recorder(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            expected[trainer.global_step] = distance(module, start)

    trainer_in(tmp_path, [kind(), Recorder(), DistanceFromInit()], max_epochs=3).fit(module, loader())
    assert values(tmp_path).to_dict() == pytest.approx(expected, **APPROX)
    per_tensor = table(tmp_path)[lambda t: (t.step == 0) & (t.layer != "")]
    assert set(per_tensor.layer) == set(start)  # frozen ones from the start


def test_a_run_whose_checkpoint_lacks_frozen_weights_is_resumed(tmp_path):
    """Earlier versions kept θ₀ of the weights alone that were trained at the start, under a key with ``per_tensor``."""
    keep = ModelCheckpoint(tmp_path, filename="one")
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    first = trainer_in(tmp_path, [UnfreezeInEpochOne(), DistanceFromInit(), keep])
    first.fit(module, loader())
    content = torch.load(tmp_path / "one.ckpt", weights_only=False)
    (key,) = (key for key in content["callbacks"] if key.startswith("DistanceFromInit"))
    state = content["callbacks"].pop(key)
    state["init"] = {0: {name: of for name, of in state["init"][0].items() if name.startswith("net.2")}}
    content["callbacks"]["DistanceFromInit{'per_tensor': True}"] = state
    torch.save(content, tmp_path / "earlier.ckpt")
    resumed = Plain()
    second = trainer_in(tmp_path, [UnfreezeInEpochOne(), DistanceFromInit(per_tensor=False)], max_epochs=3)
    second.fit(resumed, loader(), ckpt_path=tmp_path / "earlier.ckpt", weights_only=False)
    assert values(tmp_path)[3 * BATCHES] == pytest.approx(distance(resumed, start), **APPROX)


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="one")
    trainer_in(tmp_path, [DistanceFromInit(), keep]).fit(Plain(), loader())
    content = torch.load(tmp_path / "one.ckpt", weights_only=False)
    del content["callbacks"]["DistanceFromInit{}"]["init"][0]["net.2.bias"]
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"initial weights of the checkpoint have no tensor 'net\.2\.bias'"):
        trainer_in(tmp_path, [DistanceFromInit()], max_epochs=2).fit(
            Plain(), loader(), ckpt_path=tmp_path / "other.ckpt", weights_only=False
        )


class Growing(Plain):
    """A network that gets another layer at the start of epoch 1."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            torch.manual_seed(1)
            self.net.append(nn.Linear(3, 3).double())
            self.joined = {f"net.3.{name}": p.detach().clone() for name, p in self.net[3].named_parameters()}
            self.trainer.optimizers[0].add_param_group({"params": list(self.net[3].parameters())})


def test_a_layer_that_joins_later_counts_from_its_first_value(tmp_path):
    module = Growing()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainer_in(tmp_path, [DistanceFromInit()], max_epochs=2).fit(module, loader())
    assert values(tmp_path)[2 * BATCHES] == pytest.approx(distance(module, start | module.joined), **APPROX)


def test_pruning_within_a_run_keeps_the_distance_of_the_weights_in_use(tmp_path):
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    prune = ModelPruning("l1_unstructured", amount=0.5, parameters_to_prune=[(module.net[0], "weight")])
    trainer_in(tmp_path, [prune, DistanceFromInit(), WeightNorms()], max_epochs=2).fit(module, loader())
    assert (module.net[0].weight == 0).double().mean() >= 0.5
    step = 2 * BATCHES
    assert values(tmp_path)[step] == pytest.approx(distance(module, start), **APPROX)
    norm = module.net[0].weight.norm().item()
    assert values(tmp_path, "norm", "net.0.weight")[step] == pytest.approx(norm, **APPROX)


def lazy():
    return nn.Sequential(nn.LazyLinear(10), nn.ReLU(), nn.LazyLinear(3))


def test_lazy_modules_are_trained_as_without_measures_and_measured_from_their_first_values(tmp_path, caplog):
    first = {}

    class Recorder(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if not first:
                first.update({name: p.detach().clone() for name, p in module.named_parameters()})

    measuring = [ActiveNeurons(splits=["train"], every_n_steps=2), DistanceFromInit(every_n_steps=2), GradientNorm()]
    nets = []
    for name, callbacks in (("with", [*measuring, Recorder()]), ("without", [])):
        module = Plain(lazy())
        torch.manual_seed(3)
        trainer_in(tmp_path / name, callbacks, max_epochs=2).fit(module, loader())
        nets.append(module)
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)
    found = values(tmp_path / "with")
    assert list(found.index) == [2, 4, 6, 8, 10, 12]
    assert found[12] == pytest.approx(distance(nets[0], first), **APPROX)


class Deferred(Plain):
    """A module that makes its network in ``configure_model``."""

    def __init__(self):
        super().__init__()
        self.net = None

    def configure_model(self):
        if self.net is None:
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).double()


def test_a_network_made_in_configure_model_is_measured_from_the_first_step(tmp_path):
    module = Deferred()
    trainer_in(tmp_path, [DistanceFromInit(), ActiveNeurons(splits=["train"])]).fit(module, loader())
    assert list(values(tmp_path).index) == [0, BATCHES]
    start = {name: p.detach() for name, p in Plain().named_parameters()}
    assert values(tmp_path)[BATCHES] == pytest.approx(distance(module, start), **APPROX)


@pytest.mark.parametrize("dry", [True, 2])
def test_a_dry_run_measures_and_writes_nothing(tmp_path, monkeypatch, dry):
    monkeypatch.chdir(tmp_path)
    taken = []

    class Watched(DistanceFromInit):
        def measure(self, *args):
            taken.append(args[2].trainer.global_step)
            return super().measure(*args)

    callbacks = [Watched(), ClassAssociation(splits=["train"]), ActiveNeurons(splits=["train"])]
    pl.Trainer(fast_dev_run=dry, accelerator="cpu", enable_progress_bar=False, callbacks=callbacks).fit(
        Plain(), loader()
    )
    assert taken == [0, int(dry)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_a_run_is_resumed_with_another_per_tensor(tmp_path, before, after):
    keep = ModelCheckpoint(tmp_path, filename="one")
    module = Plain()
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    trainer_in(tmp_path, [DistanceFromInit(per_tensor=before), keep]).fit(module, loader())
    resumed = Plain()
    second = trainer_in(tmp_path, [DistanceFromInit(per_tensor=after)], max_epochs=2)
    second.fit(resumed, loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    assert values(tmp_path)[2 * BATCHES] == pytest.approx(distance(resumed, start), **APPROX)
