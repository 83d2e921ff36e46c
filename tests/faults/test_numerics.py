"""A run with NaN or infinite numbers ends at that step, names their origin, and saves no damaged checkpoint."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lnsgd.callbacks import FiniteGuard
from lnsgd.cli import main
from lnsgd.figures.framework.claims import CONTROL, judge
from lnsgd.measures.nonfinite import first_nonfinite, nonfinite_tensors
from lnsgd.runs.checkpoints import load_run_checkpoint
from lnsgd.runs.errors import DivergedError
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep import over_seeds
from lnsgd.training.cli import train
from tests.faults.distributed_runs import end, start
from tests.stopped_runs import CONFIG, EPOCH_STEPS, STEPS

BAD = [math.nan, math.inf, -math.inf]


class InjectNaN(Callback):
    """Sets a number to NaN after a step."""

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
                "class_path": "tests.faults.test_numerics.InjectNaN",
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


# Set to NaN before step 8 (weight, input, activation) or in it (gradient); a gradient is found a step later.
NAMED = {
    "weight": ("at step 8 (epoch 1, batch 2)", "net.layers.1.weight has 1 entry of 120 that is not finite"),
    "input": ("at step 8 (epoch 1, batch 2)", "the inputs of the batch have 1 entry that is not finite"),
    "activation": ("at step 8 (epoch 1, batch 2)", "net.layers.0 (Linear) gives numbers that are not finite"),
    "gradient": ("at step 9 (epoch 1, batch 3)", "net.layers.0.bias has 1 entry of 12 that is not finite"),
}


@pytest.mark.parametrize("what", NAMED)
def test_step_and_layer_are_named(tmp_path, what):
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


def test_overflow_of_the_loss_is_found(tmp_path):
    """The learning rate is far too large."""
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d, batch \d\)"):
        fit(tmp_path, "--model.loss", "SquaredLoss", "--model.optimizer.lr", "1e12")


def test_command_prints_one_line(tmp_path, capfd):
    options = ["--config", config(tmp_path, "weight", 7), "--run_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *options])
    assert ended.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lnsgd: ")]
    assert len(lines) == 1
    assert lines[0].startswith("lnsgd: error: the loss is nan at step 8")


@pytest.mark.slow
@pytest.mark.parametrize("what, from_rank", [("weight", 0), ("input", 1)], ids=["in-all", "in-the-second"])
def test_first_of_two_processes_reports_it(tmp_path, what, from_rank):
    path = Path(config(tmp_path, what, 7, from_rank))
    ended = end(start(path, tmp_path / "run", "--trainer.devices", "2", "--trainer.strategy", "ddp"), tmp_path)
    assert (ended.code, ended.left) == (1, [])
    (line,) = ended.lines
    assert line.startswith("lnsgd: error: the loss is nan at step 8")
    assert NAMED[what][1] in line


@pytest.mark.parametrize("what", ["gradient", "momentum"])
def test_nan_of_the_last_step_is_not_saved(tmp_path, what):
    """No later loss would show it."""
    step = STEPS - 1 if what == "gradient" else STEPS
    with pytest.raises(DivergedError, match=f"has entries that are not finite after step {STEPS}"):
        fit(tmp_path, what=what, step=step)
    saved = load_run_checkpoint(RunFolder(tmp_path / "run").last_checkpoint)
    assert saved["global_step"] == STEPS - EPOCH_STEPS
    assert not nonfinite_tensors({name: saved[name] for name in ("state_dict", "optimizer_states")})


def test_end_of_a_run_without_checkpoints_is_checked(tmp_path):
    with pytest.raises(DivergedError, match=f"net.layers.0.bias has entries that are not finite after step {STEPS}"):
        fit(tmp_path, "--trainer.enable_checkpointing", "false", what="gradient", step=STEPS - 1)


def test_ignored_nan_does_not_stop_training(tmp_path):
    with pytest.warns(UserWarning, match="net.layers.1.weight has 1 entry .*; training continues"):
        fit(tmp_path, what="weight", step=7, on_nonfinite="ignore")
    run = RunFolder(tmp_path / "run")
    assert run.finished.exists()
    assert nonfinite_tensors(load_run_checkpoint(run.last_checkpoint)["state_dict"])
    rows = pd.read_parquet(run.measures)
    assert rows.value[rows.step > 8].isna().any()


def test_guard_does_not_change_training(tmp_path):
    finals = []
    for number, guard in enumerate([{}, {"every_n_steps": 1000}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit(folder, **guard)
        finals.append(load_run_checkpoint(RunFolder(folder / "run").last_checkpoint)["state_dict"])
    torch.testing.assert_close(*finals, rtol=0, atol=0)


def test_guard_checks_every_n_steps(tmp_path):
    """A NaN of step 8 is found at step 10."""
    with pytest.raises(DivergedError, match="the loss is nan at step 10"):
        fit(tmp_path, "--trainer.max_epochs", "2", what="weight", step=7, every_n_steps=10)


@pytest.mark.parametrize(
    "given, message", [({"on_nonfinite": "stopp"}, "stop, ignore"), ({"every_n_steps": 0}, ">= 1")]
)
def test_invalid_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        FiniteGuard(**given)


@pytest.mark.parametrize("bad", BAD)
def test_search_for_the_origin_changes_nothing(bad):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(6, 3)
    net[4].weight.data.fill_(3e38)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert first_nonfinite(net, inputs) == "4 (Linear) gives numbers that are not finite"
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    net[1].running_var[0] = bad
    assert first_nonfinite(net, inputs) == "1.running_var has 1 entry of 4 that is not finite"


def test_finite_numbers_with_infinite_sum_are_finite():
    large = torch.full((4,), 3e38)
    assert nonfinite_tensors({"w": large, "steps": torch.tensor(3), "deep": [{"h": large.half()}]}) == {"deep.0.h": 4}


# -- results of diverged runs


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("bounds", [{"low": 0.0}, {"high": 0.0}, {"low": -1.0, "high": 9.0}, {}])
def test_no_claim_holds_for_nan(bad, bounds):
    assert not judge("c", "c", CONTROL, source="s", measured=[1.0, bad, 2.0], **bounds).holds


@pytest.mark.parametrize("bad", BAD)
def test_mean_over_seeds_includes_all_trained_networks(bad):
    rows = {"cell": list("abc"), "seed": [0, 1, 2], "status": ["done", "done", "diverged"]}
    empty = dict.fromkeys(("reason", "steps", "epochs", "seconds", "device", "lnsgd", "torch", "attempts", "job"))
    table = pd.DataFrame({**rows, **empty, "loss": [1.0, 3.0, bad], "trace": [1.0, bad, 5.0]})
    (row,) = over_seeds(table.rename(columns={"seed": "seed_everything"})).to_dict("records")
    assert (row["n"], row["loss"], row["status"]) == (2, 2.0, "2 done, 1 diverged")
    assert not math.isfinite(row["trace"])
