"""The callbacks, loggers and plugins that the Trainer of every run gets besides those of its config."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from pytorch_lightning.plugins.layer_sync import LayerSync

from lnsgd.callbacks.guards.finite_guard import FiniteGuard
from lnsgd.callbacks.guards.stop_on_signal import StopOnSignal
from lnsgd.callbacks.guards.watch_processes import WatchProcesses
from lnsgd.callbacks.progress_bar import MeasureProgressBar
from lnsgd.callbacks.recording.replica_record import ReplicaRecord
from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.modules.layer_sync import CPUSyncBatchNorm
from lnsgd.runs.checkpoints import WholeCheckpointIO
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.processes import (
    LostProcess,
    check_devices,
    check_nodes,
    check_strategy,
    cluster_environments,
    watch_launched,
)
from lnsgd.runs.signals import StopSignals

# A progress bar that is redrawn at every step costs a third of a small network's training time.
_BAR_REFRESH_STEPS = 20

_CHECKPOINT_INTERVAL = timedelta(minutes=2)


def add_progress_bar(callbacks: list[Callback], enabled: bool | None, replicated: bool) -> None:
    """Add a progress bar unless it is switched off or there is one."""
    if enabled is not False and not has_kind(callbacks, ProgressBar):
        callbacks.append(StepProgressBar() if replicated else MeasureProgressBar(refresh_rate=_BAR_REFRESH_STEPS))


def add_recording(
    callbacks: list[Callback], record: Callback, run: RunFolder, replicated: bool, checkpoints: bool, stop: StopSignals
) -> None:
    """Add what keeps a run on disk: its records, its checkpoints, and a checkpoint when it is stopped by a signal.

    Args:
        callbacks: Those of the run so far.
        record: Writes the config and the end of the run.
        run: The folder of the run.
        replicated: Whether replicas are trained.
        checkpoints: Whether checkpoints are enabled.
        stop: Signals that stop the run.
    """
    callbacks.insert(0, record)
    if replicated:
        callbacks.insert(0, ReplicaRecord(run))  # before the other records that the run has ended
    if checkpoints and not has_kind(callbacks, Checkpoint):
        callbacks += _checkpoints(replicated)
    if checkpoints and not has_kind(callbacks, StopOnSignal):
        callbacks.append(StopOnSignal(stop))


def add_guard(callbacks: list[Callback]) -> None:
    """Add the guard against numbers that are not finite, unless there is one."""
    if not has_kind(callbacks, FiniteGuard):
        callbacks.append(FiniteGuard())


def _checkpoints(replicated: bool) -> list[ModelCheckpoint]:
    """Make the callbacks that write ``last.ckpt`` after each epoch.

    In a replicated run, where an epoch may be the whole run, it is also written in between. By default Lightning saves
    after validations only, where these are rarer or more frequent than epochs, and the steps after the last validation
    would be in no checkpoint. A file for each epoch beside ``last.ckpt`` would hold the same.
    """
    last = partial(ModelCheckpoint, filename=ModelCheckpoint.CHECKPOINT_NAME_LAST, enable_version_counter=False)
    each_epoch = last(save_on_train_epoch_end=True)
    return [each_epoch, last(train_time_interval=_CHECKPOINT_INTERVAL)] if replicated else [each_epoch]


def run_plugins(settings: Any) -> list[Any]:
    """Return the plugins of the config and those that every run needs.

    Args:
        settings: The Trainer's settings.
    """
    plugins = [*as_list(settings.plugins), WholeCheckpointIO()]
    if not has_kind(plugins, ClusterEnvironment):
        plugins += cluster_environments()
    if settings.sync_batchnorm and settings.accelerator == "cpu" and not has_kind(plugins, LayerSync):
        plugins.append(CPUSyncBatchNorm())
    return plugins


def choose_devices(settings: Any) -> None:
    """Let a Trainer that may choose use the CPU where there is no CUDA GPU, and check its devices and its strategy.

    Args:
        settings: The Trainer's settings, which are changed.

    Raises:
        ValueError: there are no such devices, or the strategy divides the weights among processes.
    """
    check_strategy(settings.strategy)
    if settings.accelerator == "auto" and not torch.cuda.is_available():
        settings.accelerator = "cpu"
    check_devices(settings.accelerator, settings.devices)


def watch_processes(trainer: Trainer, run: RunFolder | None) -> LostProcess:
    """Let everything that watches the processes of a run report to one object, and return that object.

    Raises:
        ValueError: the settings ask for several machines, and the run was started on one only; or the strategy divides
            the weights among processes.
    """
    check_strategy(trainer.strategy)  # a class of the user's own, which its path does not show
    check_nodes(trainer)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.world_size > 1 and not has_kind(callbacks, WatchProcesses):  # a callback is not free in a small step
        callbacks.append(WatchProcesses())
    resume = (
        "Start the run again"
        if run is None
        else f"Resume the run: the same command with --run_dir {run.path} --ckpt_path auto"
    )
    lost = watch_launched(trainer, resume)
    for callback in callbacks:
        if isinstance(callback, WatchProcesses):
            callback.lost = lost
    return lost


def set_save_dir(loggers: Any, run: RunFolder | None) -> None:
    """Let configured loggers write into the run's folder, or reset them to their default folder."""
    for logger in as_list(loggers):
        arguments = logger.get("init_args") if hasattr(logger, "get") else None
        if arguments is not None and "save_dir" in arguments:
            arguments["save_dir"] = str(run.path) if run else "."


def as_list(setting: Any) -> list[Any]:
    """Return a Trainer setting, which may be one object, a list of objects, or nothing, as a list."""
    if setting is None or isinstance(setting, bool):
        return []
    return list(setting) if isinstance(setting, list) else [setting]


def has_kind(objects: Sequence[Any], kind: type) -> bool:
    """Return whether one of the objects is an instance of a class."""
    return any(isinstance(one, kind) for one in objects)
