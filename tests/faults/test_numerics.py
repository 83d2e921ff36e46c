"""A run whose numbers are NaN or infinite ends at that step, says where they come from, and spoils no checkpoint."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lnsgd.callbacks import FiniteGuard
from lnsgd.checkpoints import load_run_checkpoint
from lnsgd.cli import main
from lnsgd.figures.claims import judge
from lnsgd.measures.nonfinite import first_nonfinite, nonfinite_tensors
from lnsgd.run_errors import DivergedError
from lnsgd.run_folder import RunFolder
from lnsgd.sweep.seeds import over_seeds
from lnsgd.training import train
from tests.faults.processes import end, start
from tests.stopped_runs import CONFIG, EPOCH_STEPS, STEPS

BAD = [math.nan, math.inf, -math.inf]


class SpoilAt(Callback):
    """Puts a NaN somewhere, once a step has been taken."""

    def __init__(self, step: int, what: str, from_rank: int = 0) -> None:
        self.step, self.what, self.from_rank = step, what, from_rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch, batch_idx) -> None:
        if trainer.global_step == self.step and trainer.global_rank >= self.from_rank:
            if self.what == "weight":
                pl_module.net.layers[1].weight.data[2, 3] = math.nan
            elif self.what == "input":
                batch.inputs[1].view(-1)[2] = math.inf
            elif self.what == "activation":
                pl_module.net.layers[0].register_forward_hook(lambda m, i, output: output / 0)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self.step and self.what == "gradient":
            pl_module.net.layers[0].bias.grad[4] = math.nan

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args) -> None:
        if trainer.global_step == self.step and self.what == "momentum":
            state = trainer.optimizers[0].state[pl_module.net.layers[0].weight]
            state["momentum_buffer"][0, 0] = math.nan


def config(folder: Path, what: str | None = None, step: int = 0, from_rank: int = 0, **guard) -> str:
    settings = yaml.safe_load(CONFIG)
    callbacks = settings["trainer"]["callbacks"]
    if what:
        callbacks.append(
            {
                "class_path": "tests.faults.test_numerics.SpoilAt",
                "init_args": {"step": step, "what": what, "from_rank": from_rank},
            }
        )
    if guard:
        callbacks.append({"class_path": "lnsgd.callbacks.FiniteGuard", "init_args": guard})
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def fit(folder: Path, *options: str, **settings) -> None:
    train(["fit", "--config", config(folder, **settings), "--run_dir", str(folder / "run"), *options])


# What is spoiled before (weight, input, activation) or in step 8 (gradient); a gradient is seen a step later.
NAMED = {
    "weight": ("at step 8 (epoch 1, batch 2)", "net.layers.1.weight has 1 entry of 120 that are not finite"),
    "input": ("at step 8 (epoch 1, batch 2)", "the inputs of the batch have 1 entry that are not finite"),
    "activation": ("at step 8 (epoch 1, batch 2)", "net.layers.0 (Linear) gives numbers that are not finite"),
    "gradient": ("at step 9 (epoch 1, batch 3)", "net.layers.0.bias has 1 entry of 12 that are not finite"),
}


@pytest.mark.parametrize("what", NAMED)
def test_the_step_and_the_layer_are_named(tmp_path, what):
    with pytest.raises(DivergedError) as found:
        fit(tmp_path, what=what, step=7)
    where, cause = NAMED[what]
    assert str(found.value).startswith("the loss is nan")
    assert where in str(found.value) and cause in str(found.value)
    assert found.value.step == (8 if what == "gradient" else 7)
    run = RunFolder(tmp_path / "run")
    assert str(run.last_checkpoint) in str(found.value)
    saved = load_run_checkpoint(run.last_checkpoint)
    assert saved["global_step"] == EPOCH_STEPS
    assert not nonfinite_tensors({name: saved[name] for name in ("state_dict", "optimizer_states")})
    assert not run.finished.exists()


def test_a_loss_that_overflows_by_itself(tmp_path):
    """As it happens: a learning rate that is far too large."""
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d, batch \d\)"):
        fit(tmp_path, "--model.loss", "SquaredLoss", "--model.optimizer.lr", "1e12")


def test_the_command_says_one_line(tmp_path, capfd):
    options = ["--config", config(tmp_path, "weight", 7), "--run_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *options])
    assert ended.value.code == 1
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lnsgd: ")]
    assert len(said) == 1
    assert said[0].startswith("lnsgd: error: the loss is nan at step 8")


@pytest.mark.slow
@pytest.mark.parametrize("what, from_rank", [("weight", 0), ("input", 1)], ids=["in-all", "in-the-second"])
def test_of_two_processes_the_first_says_it(tmp_path, what, from_rank):
    path = Path(config(tmp_path, what, 7, from_rank))
    ended = end(start(path, tmp_path / "run", "--trainer.devices", "2", "--trainer.strategy", "ddp"), tmp_path)
    assert (ended.code, ended.left) == (1, [])
    (line,) = ended.said
    assert line.startswith("lnsgd: error: the loss is nan at step 8")
    assert NAMED[what][1] in line


@pytest.mark.parametrize("what", ["gradient", "momentum"])
def test_what_the_last_step_has_spoiled_gets_into_no_checkpoint(tmp_path, what):
    """No loss follows that would show it."""
    step = STEPS - 1 if what == "gradient" else STEPS
    with pytest.raises(DivergedError, match=f"has entries that are not finite after step {STEPS}"):
        fit(tmp_path, what=what, step=step)
    saved = load_run_checkpoint(RunFolder(tmp_path / "run").last_checkpoint)
    assert saved["global_step"] == STEPS - EPOCH_STEPS
    assert not nonfinite_tensors({name: saved[name] for name in ("state_dict", "optimizer_states")})


def test_without_checkpoints_the_end_is_looked_at(tmp_path):
    with pytest.raises(DivergedError, match=f"net.layers.0.bias has entries that are not finite after step {STEPS}"):
        fit(tmp_path, "--trainer.enable_checkpointing", "false", what="gradient", step=STEPS - 1)


def test_a_run_that_ignores_it_trains_on(tmp_path):
    with pytest.warns(UserWarning, match="net.layers.1.weight has 1 entry .*; trained on"):
        fit(tmp_path, what="weight", step=7, on_nonfinite="ignore")
    run = RunFolder(tmp_path / "run")
    assert run.finished.exists()
    assert nonfinite_tensors(load_run_checkpoint(run.last_checkpoint)["state_dict"])
    rows = pd.read_parquet(run.measures)
    assert rows.value[rows.step > 8].isna().any()


def test_looking_changes_nothing(tmp_path):
    finals = []
    for number, guard in enumerate([{}, {"every_n_steps": 1000}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit(folder, **guard)
        finals.append(load_run_checkpoint(RunFolder(folder / "run").last_checkpoint)["state_dict"])
    torch.testing.assert_close(*finals, rtol=0, atol=0)


def test_every_n_steps(tmp_path):
    """A NaN of step 8 is seen at step 10."""
    with pytest.raises(DivergedError, match="the loss is nan at step 10"):
        fit(tmp_path, "--trainer.max_epochs", "2", what="weight", step=7, every_n_steps=10)


@pytest.mark.parametrize("given, said", [({"on_nonfinite": "stopp"}, "stop, ignore"), ({"every_n_steps": 0}, ">= 1")])
def test_wrong_settings(given, said):
    with pytest.raises(ValueError, match=said):
        FiniteGuard(**given)


@pytest.mark.parametrize("bad", BAD)
def test_the_second_look_leaves_everything_as_it_is(bad):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(6, 3)
    inputs[2, 1] = 1e38
    net[4].weight.data.fill_(1e38)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert "that are not finite" in (first_nonfinite(net, inputs * 10) or "")
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    net[1].running_var[0] = bad
    assert first_nonfinite(net, inputs) == "1.running_var has 1 entry of 4 that are not finite"


def test_finite_numbers_whose_sum_overflows_are_finite():
    large = torch.full((4,), 3e38)
    assert nonfinite_tensors({"w": large, "steps": torch.tensor(3), "deep": [{"h": large.half()}]}) == {"deep.0.h": 4}


# -- what is made of runs that have diverged


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("bounds", [{"low": 0.0}, {"high": 0.0}, {"low": -1.0, "high": 9.0}, {}])
def test_no_claim_holds_for_it(bad, bounds):
    assert not judge("c", source="s", paper="p", measured=[1.0, bad, 2.0], **bounds).holds


@pytest.mark.parametrize("bad", BAD)
def test_a_mean_over_seeds_is_that_of_all_trained_networks(bad):
    rows = {"cell": list("abc"), "seed": [0, 1, 2], "status": ["done", "done", "diverged"]}
    empty = dict.fromkeys(("reason", "steps", "epochs", "seconds", "device", "lnsgd", "torch", "attempts", "job"))
    table = pd.DataFrame({**rows, **empty, "loss": [1.0, 3.0, bad], "trace": [1.0, bad, 5.0]})
    (row,) = over_seeds(table.rename(columns={"seed": "seed_everything"})).to_dict("records")
    assert (row["n"], row["loss"], row["status"]) == (2, 2.0, "2 done, 1 diverged")
    assert not math.isfinite(row["trace"])
