"""From a config to a finished run: ``lnsgd fit``, ``validate`` and ``test``."""

import copy
import logging
import signal
import warnings
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.utilities.exceptions import SIGTERMException

import lnsgd.data
import lnsgd.label_noise
import lnsgd.losses
import lnsgd.models
import lnsgd.modules  # noqa: F401  (imported, the classes of these rooms can be named without their path)
from lnsgd import rng
from lnsgd.callbacks.finite_guard import FiniteGuard
from lnsgd.callbacks.replica_record import ReplicaRecord
from lnsgd.callbacks.run_record import RunRecord
from lnsgd.callbacks.step_progress_bar import StepProgressBar
from lnsgd.callbacks.stop_on_signal import StopOnSignal
from lnsgd.callbacks.watch_processes import WatchProcesses
from lnsgd.checkpoints import WholeCheckpointIO, check_fits
from lnsgd.data import ReplicatedData
from lnsgd.loggers import CSVLogger, WandbLogger
from lnsgd.modules import ReplicatedModule
from lnsgd.modules.layer_sync import CPUSyncBatchNorm
from lnsgd.processes import LostProcess, check_devices, check_nodes, cluster_environments, watch_launched
from lnsgd.replicas import ReplicaGrid
from lnsgd.run_choice import (
    choose_folder,
    given_run,
    has_ended,
    is_first_process,
    last_checkpoint,
    newest_checkpoint,
)
from lnsgd.run_folder import RunFolder
from lnsgd.stop_signals import StopSignals
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.texts import load_yaml

# A progress bar that is redrawn at every step costs a third of a small network's training time.
_BAR_REFRESH_STEPS = 20

_CHECKPOINT_INTERVAL = timedelta(minutes=2)

# Advice of Lightning that does not apply here.
_IRRELEVANT_WARNINGS = (
    r"It is recommended to use `self.log\(.*sync_dist=True\)`",  # what is logged is the same on all processes
    "LightningCLI's args parameter is intended",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


_IRRELEVANT_INFO = ("💡", "TPU available", "\nDetected KeyboardInterrupt")


class TrainingCLI(LightningCLI):
    """LightningCLI with a folder per run, keyed initialization and one seed for everything.

    Args:
        args: Command line after ``lnsgd``, such as ``["fit", "--config", "configs/mnist.yaml"]``.
        signals: Signals that stop the run, noted so far.
        callbacks: Further callbacks of the Trainer, which are no part of the config.

    Attributes:
        ended: Whether there was nothing to do: ``--ckpt_path auto`` has found a run that has reached its end.
    """

    def __init__(self, args: list[str], signals: StopSignals, callbacks: Sequence[Callback] = ()) -> None:
        self.run_folder: RunFolder | None = None
        self.signals = signals
        self.further_callbacks = callbacks
        self.ended = False
        quiet = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={**quiet, **dict.fromkeys(self.subcommands(), quiet)},
            args=args,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainingCLI":
        """Itself, which a copied model still refers to: jsonargparse's ``optimizer`` holds on to Lightning's parser."""
        return self

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer methods that are commands."""
        offered = LightningCLI.subcommands()
        return {name: offered[name] for name in ("fit", "validate", "test")}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Lightning's own, with a seed that is always fixed."""
        super().add_default_arguments_to_parser(parser)
        for action in parser._actions:
            if action.dest == "seed_everything":
                action.help = "Key of everything random: initialization, order, noise, subsets. An integer >= 0."

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's folder, and the one seed."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of the run; by default runs/<name of the config>, with a number where that is taken.",
        )
        parser.add_argument(
            "--replicas",
            type=ReplicaGrid | None,
            default=None,
            help="Train many replicas of the model together, see lnsgd.replicas.ReplicaGrid.",
        )
        parser.set_defaults({"trainer.devices": 1})  # a small network gains nothing from all GPUs of a machine
        for target in ("model.init_args.seed", "data.init_args.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=_fixed_seed)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the config says what the model is, not a checkpoint's hyperparameters."""

    def before_instantiate_classes(self) -> None:
        """Settles where the run goes, before anything is built."""
        config = self.config[self.subcommand]
        checkpoint = config.get("ckpt_path")
        automatic = self.subcommand == "fit" and checkpoint == "auto"
        if automatic:
            run = given_run(config.run_dir, checkpoint)
            self.ended = has_ended(run, config.trainer)
            if self.ended:
                return
            config.ckpt_path = checkpoint = newest_checkpoint(run)
        elif checkpoint == "last":
            config.ckpt_path = checkpoint = last_checkpoint(config.run_dir)
        elif checkpoint is not None and not Path(checkpoint).exists():
            raise ValueError(f"ckpt_path = {checkpoint}: there is no such checkpoint")
        if self.subcommand == "fit":
            self.run_folder = choose_folder(config.run_dir, checkpoint, config.get("config"), start_over=automatic)
        elif checkpoint is None:
            raise ValueError(f"lnsgd {self.subcommand} measures a trained network: give its checkpoint, --ckpt_path")
        if config.trainer.accelerator == "auto" and not torch.cuda.is_available():
            config.trainer.accelerator = "cpu"
        check_devices(config.trainer.accelerator, config.trainer.devices)
        if self.run_folder is not None:
            _set_save_dir(config.trainer.logger, self.run_folder)
            if checkpoint is None:
                self.run_folder.wandb_id.unlink(missing_ok=True)

    def instantiate_classes(self) -> None:
        """Builds everything with the global generators keyed by (seed, "init")."""
        if self.ended:
            return
        with rng.forked(_fixed_seed(self.config[self.subcommand].seed_everything), "init"):
            super().instantiate_classes()
        if (grid := self.config_init[self.subcommand].replicas) is not None:
            replicas = grid.replicas(_fixed_seed(self.config[self.subcommand].seed_everything))
            self.model = ReplicatedModule(self.model, replicas, grid.engine, grid.steps_per_call)
            self.datamodule = ReplicatedData(self.datamodule, replicas)
        if checkpoint := self.config[self.subcommand].ckpt_path:
            check_fits(Path(checkpoint), self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The configured Trainer, with what every run has: CSV, checkpoints and its record."""
        settings = self.config_init[self.subcommand].trainer
        callbacks = [*_as_list(settings.callbacks), *self.further_callbacks]
        loggers = _as_list(settings.logger)
        replicated = self.config_init[self.subcommand].replicas is not None
        if settings.enable_progress_bar is not False and not _has(callbacks, ProgressBar):
            callbacks.append(StepProgressBar() if replicated else TQDMProgressBar(refresh_rate=_BAR_REFRESH_STEPS))
        if self.run_folder is not None and not settings.fast_dev_run:
            resume = self.config[self.subcommand].ckpt_path is not None
            loggers.insert(0, CSVLogger(str(self.run_folder.path), resume))
            callbacks.insert(0, RunRecord(self.run_folder, self._resolved_config(), self._settings()))
            if replicated:
                callbacks.insert(0, ReplicaRecord(self.run_folder))  # before the other says that the run has ended
            if settings.enable_checkpointing is not False and not _has(callbacks, Checkpoint):
                callbacks += _checkpoints(replicated)
            if settings.enable_checkpointing is not False and not _has(callbacks, StopOnSignal):
                callbacks.append(StopOnSignal(self.signals))
            kwargs["default_root_dir"] = str(self.run_folder.path)
        kwargs["plugins"] = [*_as_list(settings.plugins), WholeCheckpointIO()]
        if not _has(kwargs["plugins"], ClusterEnvironment):
            kwargs["plugins"] += cluster_environments()
        if settings.sync_batchnorm and settings.accelerator == "cpu" and not _has(kwargs["plugins"], LayerSync):
            kwargs["plugins"].append(CPUSyncBatchNorm())
        if self.subcommand == "fit" and not replicated and not _has(callbacks, FiniteGuard):
            callbacks.append(FiniteGuard())
        if not _has(callbacks, StopOnSignal):
            self.signals.leave_interruptions()
        trainer = super().instantiate_trainer(callbacks=callbacks, logger=loggers or False, **kwargs)
        check_nodes(trainer)
        self.lost = _watch(trainer, self.run_folder)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if self.ended:
            if is_first_process():
                print(f"The run in {self.config[subcommand].run_dir} has reached its end already")
            return
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as ended:  # stopped on request: what was logged is complete as far as it goes
            self.finish()
            if isinstance(ended, SIGTERMException):  # with code 0, as Lightning raises it
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        except Exception as error:
            if (lost := self.lost.behind(error)) is not None:
                raise lost from error
            raise
        finally:  # Lightning does not get to it where another callback fails on the failure of a run
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StopOnSignal):
                    callback.teardown(self.trainer, self.model, subcommand)

    def after_fit(self) -> None:
        """Says where the run is."""
        if self.run_folder is not None and self.trainer.is_global_zero and self.run_folder.path.exists():
            print(f"The run is in {self.run_folder.path}")

    def after_validate(self) -> None:
        """Prints what was measured."""
        self._print_metrics()

    def after_test(self) -> None:
        """Prints what was measured."""
        self._print_metrics()

    def _print_metrics(self) -> None:
        if self.trainer.is_global_zero:
            for name, value in self.trainer.callback_metrics.items():
                print(f"{name}: {value.item():.6g}")

    def finish(self) -> None:
        """Ends the loggers that need it."""
        if self.ended:
            return
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.finish()

    def _resolved_config(self) -> str:
        config = copy.deepcopy(self.config[self.subcommand])
        config.pop("config", None)
        config.run_dir = config.ckpt_path = None  # another run goes to another folder
        _set_save_dir(config.trainer.logger, None)
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def _settings(self) -> dict[str, Any]:
        settings = copy.deepcopy(self.config[self.subcommand])
        settings.pop("config", None)
        return settings.as_dict()


def train(args: list[str], signals: StopSignals | None = None, callbacks: Sequence[Callback] = ()) -> TrainingCLI:
    """Runs one training command to its end; see `TrainingCLI`.

    Args:
        args: Command line after ``lnsgd``.
        signals: Signals that stop the run, noted so far. Where there are none they are noted here, and what came
            too late to stop the run is raised again after it. What only measures is not stopped but ended by them.
        callbacks: Further callbacks of the Trainer, which are no part of the config.

    Raises:
        ValueError, argparse.ArgumentError: the config is wrong.
        OSError: data is missing, or the run's folder cannot be written to.
        SystemExit: the run was stopped on request; see `StopOnSignal`.
    """
    if args[:1] != ["fit"]:
        return _train(args, StopSignals(), callbacks)
    with signals or StopSignals() as noted:
        cli = _train(args, noted, callbacks)
    if signals is None and noted.received:
        signal.raise_signal(noted.received)
    return cli


def _train(args: list[str], signals: StopSignals, callbacks: Sequence[Callback]) -> TrainingCLI:
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_relevant)
    check_config_files(args)
    with warnings.catch_warnings():
        for message in _IRRELEVANT_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            cli = TrainingCLI(args, signals, callbacks)
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
        cli.finish()
    return cli


def check_config_files(args: list[str]) -> None:
    """Raises ValueError for a config on the command line that cannot be read; the parser does not say which it is.

    Args:
        args: Those of the command, ``--config FILE`` or ``--config=FILE`` among them.
    """
    given = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg in ("--config", "-c")]
    given += [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]
    for path in map(Path, given):
        if not path.is_file():
            raise ValueError(f"--config {path} does not exist")
        try:
            content = load_yaml(path)
        except UnreadableError as error:
            raise ValueError(f"--config {path} is not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"--config {path} holds no settings; write `name: value` pairs as in configs/mnist.yaml")


def _relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_IRRELEVANT_INFO)


def _watch(trainer: Trainer, run: RunFolder | None) -> LostProcess:
    """Lets whatever watches the processes of a run tell one object of a loss."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.world_size > 1 and not _has(callbacks, WatchProcesses):  # a callback is not free in a small step
        callbacks.append(WatchProcesses())
    remedy = "Start it again" if run is None else f"Go on: the same command with --run_dir {run.path} --ckpt_path auto"
    lost = watch_launched(trainer, remedy)
    for callback in callbacks:
        if isinstance(callback, WatchProcesses):
            callback.lost = lost
    return lost


def _fixed_seed(seed: bool | int) -> int:
    if isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed_everything = {seed}; give an integer >= 0, so that the run can be repeated")
    return seed


def _set_save_dir(loggers: Any, run: RunFolder | None) -> None:
    """Lets configured loggers write into the run's folder, or again where they do by default."""
    for logger in _as_list(loggers):
        arguments = logger.get("init_args") if hasattr(logger, "get") else None
        if arguments is not None and "save_dir" in arguments:
            arguments["save_dir"] = str(run.path) if run else "."


def _as_list(setting: Any) -> list[Any]:
    """A Trainer setting that may be one object, a list of them, or nothing."""
    if setting is None or isinstance(setting, bool):
        return []
    return list(setting) if isinstance(setting, list) else [setting]


def _checkpoints(replicated: bool) -> list[ModelCheckpoint]:
    """``last.ckpt`` after each epoch; in a replicated run, where an epoch may be the whole run, also in between.

    Left to itself Lightning saves after validations alone where these are rarer or more frequent than epochs, and the
    steps after the last one would be in no checkpoint. A file for each epoch beside ``last.ckpt`` would hold the same.
    """
    last = partial(ModelCheckpoint, filename=ModelCheckpoint.CHECKPOINT_NAME_LAST, enable_version_counter=False)
    each_epoch = last(save_on_train_epoch_end=True)
    return [each_epoch, last(train_time_interval=_CHECKPOINT_INTERVAL)] if replicated else [each_epoch]


def _has(objects: list[Any], kind: type) -> bool:
    return any(isinstance(one, kind) for one in objects)
