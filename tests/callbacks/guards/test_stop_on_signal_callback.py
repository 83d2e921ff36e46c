"""A run stopped by a signal ends with exit code 75, and resumed it equals a run that was never stopped."""

import json
import signal
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml

from lnsgd.callbacks import StopOnSignal
from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.resume import newest_checkpoint
from lnsgd.runs.signals import STOP_SIGNALS, StopSignals
from tests.stopped_runs import EPOCH_STEPS, STEPS, assert_same_run, write_configs

GRID = ["--replicas.seeds", "2", "--replicas.noise", "[0,0.2]"]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(name: str, run_dir: str, *options: str) -> RunFolder:
    main(["fit", "--config", f"{name}.yaml", "--run_dir", run_dir, "--ckpt_path", "auto", *options])
    return RunFolder(Path(run_dir))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_configs(folder)
        return RunFolder(folder / fit("plain", "run").path)


def stopped(capsys: pytest.CaptureFixture[str], *options: str, **signal_at: Any) -> tuple[int, str]:
    """Stop a run; return the step and the line that is printed."""
    write_configs(Path(), **signal_at)
    with pytest.raises(SystemExit) as ended:
        fit("stopped", "run", *options)
    assert ended.value.code == 75
    run = RunFolder(Path("run"))
    assert not run.finished.exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lnsgd:")]
    step = torch.load(run.last_checkpoint, weights_only=False)["global_step"]
    assert f"at step {step};" in line
    return step, line


# At the last batch but one of an epoch, at its last, and in the next.
@pytest.mark.parametrize(("step", "name"), [(4, "SIGTERM"), (5, "SIGUSR2"), (8, "SIGUSR1")])
def test_stopped_run_is_resumed_exactly(
    undisturbed: RunFolder, capsys: pytest.CaptureFixture[str], step: int, name: str
) -> None:
    at, line = stopped(capsys, step=step, name=name)
    assert at == step
    assert line.startswith(f"lnsgd: stopped by {name} at step {step}; resume from run/checkpoints/last.ckpt ")
    assert "--run_dir run --ckpt_path auto" in line
    callbacks = yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]["callbacks"]
    assert [callback["class_path"] for callback in callbacks][1:] == ["tests.stopped_runs.SignalAt"]
    assert_same_run(fit("plain", "run"), undisturbed)


@pytest.mark.parametrize(
    ("hook", "step", "at"),
    [
        ("setup", 0, 1),
        ("on_validation_start", EPOCH_STEPS, EPOCH_STEPS),
        ("on_save_checkpoint", EPOCH_STEPS, EPOCH_STEPS),
        ("on_train_epoch_start", EPOCH_STEPS, EPOCH_STEPS + 1),
    ],
)
def test_signal_in_any_hook_stops_the_run(
    undisturbed: RunFolder, capsys: pytest.CaptureFixture[str], hook: str, step: int, at: int
) -> None:
    assert stopped(capsys, step=step, hook=hook, name="SIGTERM")[0] == at
    assert_same_run(fit("plain", "run"), undisturbed)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_fit_end"])
def test_run_at_its_end_exits_normally(undisturbed: RunFolder, hook: str) -> None:
    write_configs(Path(), step=STEPS, hook=hook)
    run = fit("stopped", "run")
    assert json.loads(run.finished.read_text())["steps"] == STEPS
    assert_same_run(run, undisturbed)


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_command_without_checkpoints_exits_with_the_code_of_its_signal(command: str) -> None:
    """Lightning itself would end it with exit code 0 although nothing was saved."""
    hook = {"fit": "on_train_batch_end", "validate": "on_validation_batch_end", "test": "on_test_batch_end"}[command]
    write_configs(Path(), step=2 if command == "fit" else 0, hook=hook, name="SIGTERM")
    options = ["--trainer.enable_checkpointing", "false"]
    if command != "fit":
        fit("plain", "run", "--trainer.max_epochs", "1")
        options = ["--ckpt_path", "run/checkpoints/last.ckpt", "--data.eval_batch_size", "20"]
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", "stopped.yaml", *options])
    assert ended.value.code == 128 + signal.SIGTERM
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_handlers_are_restored(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stopped(capsys, step=2)
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_accumulation_of_gradients_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.accumulate_grad_batches", "2"]
    write_configs(Path())
    whole = fit("plain", "whole", *options)
    # Three steps an epoch, the last of one batch; the signal comes with the first batch of the second.
    assert stopped(capsys, *options, step=1, hook="on_train_batch_start")[0] == 2
    assert_same_run(fit("plain", "run", *options), whole)


PATIENT = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 10.0}}


def test_state_after_validation_within_an_epoch_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    """A run stopped just before it must not forget that early stopping saw no progress."""
    options = ["--trainer.val_check_interval", "2", "--trainer.callbacks+", json.dumps(PATIENT)]
    write_configs(Path())
    whole = fit("plain", "whole", *options)
    assert json.loads(whole.finished.read_text())["steps"] == 4  # the second without progress
    assert stopped(capsys, *options, step=2)[0] == 3
    assert_same_run(fit("plain", "run", *options), whole)


def test_stopped_replicas_are_resumed_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    """Calls end at every second step for the measure, where the loss is logged, and at the end of an epoch."""
    options = [*GRID, "--replicas.engine", "kernel"]
    write_configs(Path())
    whole = fit("plain", "whole", *options)
    for step in (3, 10, 12):
        assert stopped(capsys, *options, step=step)[0] == step
    assert_same_run(fit("plain", "run", *options), whole)


def test_run_is_resumed_from_the_newest_checkpoint(undisturbed: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A ModelCheckpoint that finds a ``last.ckpt`` it did not write calls its own ``last-v1.ckpt``."""
    counting = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 6, "save_last": True}}
    options = ["--trainer.callbacks+", json.dumps(counting)]
    stopped(capsys, *options, step=3)
    assert stopped(capsys, *options, step=7)[0] == 7
    assert {path.name for path in Path("run/checkpoints").glob("last*.ckpt")} == {"last.ckpt", "last-v1.ckpt"}
    run = fit("plain", "run", *options)
    assert f"{run.checkpoints}/last-v1.ckpt" == newest_checkpoint(run)
    pd.testing.assert_frame_equal(pd.read_csv(run.metrics), pd.read_csv(undisturbed.metrics), check_exact=True)


def test_run_without_checkpoints_ignores_the_signal() -> None:
    write_configs(Path(), step=3)
    run = fit("stopped", "run", "--trainer.enable_checkpointing", "false")
    assert run.finished.exists()
    assert not run.checkpoints.exists()


def test_foreign_trainer_is_stopped_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a foreign module and data and without a folder of lnsgd."""

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if batch_idx == 2:
                signal.raise_signal(signal.SIGUSR1)
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 2)))
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[StopOnSignal()],
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
    )
    with pytest.raises(SystemExit) as ended:
        trainer.fit(Plain(), data)
    assert ended.value.code == 75
    run = next(tmp_path.glob("runs/Plain"), tmp_path)  # the working directory is not the folder of a run
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 3
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_signals_are_not_handled_outside_the_main_thread() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    seen: list[object] = []

    def enter() -> None:
        with StopSignals() as signals:
            signals.listen()
            seen.extend(signal.getsignal(number) for number in STOP_SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == list(before.values())
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_handlers_entered_twice_are_restored_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        with signals:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        assert signals.received is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


class Processes:
    """Two simulated processes in step, with simulated clocks and signals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_per_batch: list[float]) -> None:
        self.time = 0.0
        self.asked_at: list[float] = []
        monkeypatch.setattr("lnsgd.callbacks.guards.stop_on_signal.time", SimpleNamespace(monotonic=lambda: self.time))
        self.signals = [StopSignals(), StopSignals()]
        self.callbacks = [StopOnSignal(signals) for signals in self.signals]
        self.seconds_per_batch = seconds_per_batch

    def batch(self, number: int) -> list[bool]:
        """Whether each asks in a batch; what one is told is what the other is."""
        self.time += self.seconds_per_batch[number]
        asked: list[torch.Tensor] = []

        def reduce(mine: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "max"
            asked.append(mine)
            # The second process is asked with what the first has said.
            others = [float(signals.received or 0) for signals in self.signals]
            return torch.tensor([max(others), float(mine[1])])

        strategy = SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"))
        trainer = SimpleNamespace(world_size=2, strategy=strategy)
        counts = []
        for callback in self.callbacks:
            before = len(asked)
            callback._ask(trainer)  # type: ignore[arg-type]
            counts.append(len(asked) > before)
        return counts


@pytest.mark.parametrize("seconds", [0.001, 0.03, 2.5])
def test_processes_ask_each_other_about_once_a_second(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    number = max(10, round(20 / seconds))
    processes = Processes(monkeypatch, [seconds] * number)
    times = []
    for batch in range(number):
        first, second = processes.batch(batch)
        assert first == second
        if first:
            times.append(processes.time)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= max(1.0, seconds) + 1e-6
    assert len(times) <= processes.time / max(1.0, seconds) * 1.1 + 12  # doubling up to there


@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_process_stops_both(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    processes = Processes(monkeypatch, [0.1] * 100)
    for batch in range(40):
        processes.batch(batch)
    processes.signals[rank].received = signal.SIGUSR2
    for batch in range(40, 51):
        processes.batch(batch)
    assert [callback._stopped_by for callback in processes.callbacks] == [signal.SIGUSR2] * 2
