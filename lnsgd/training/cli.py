"""The training commands ``lnsgd fit``, ``validate`` and ``test``: from a config to a finished run."""

import copy
import logging
import signal
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lnsgd import rng
from lnsgd.callbacks.base.run_folder import set_run_folder
from lnsgd.callbacks.guards.stop_on_signal import StopOnSignal
from lnsgd.callbacks.recording.run_record import RunRecord
from lnsgd.console.messages import one_line
from lnsgd.loggers import CSVLogger, WandbLogger
from lnsgd.records.changes import Change
from lnsgd.replicas import ReplicatedData, ReplicatedModule
from lnsgd.runs.checkpoints import check_fits
from lnsgd.runs.claims import released_at_end
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.resume import is_first_process
from lnsgd.runs.signals import StopSignals
from lnsgd.training import parser as arguments
from lnsgd.training import trainer_parts as parts
from lnsgd.training.changes import changes_since, check_changes
from lnsgd.training.end_screen import end_screen
from lnsgd.training.run_choice import choose_run, with_resumed_run
from lnsgd.training.shipped_configs import with_config_paths
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.texts import load_yaml

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
        callbacks: Further callbacks of the Trainer, which are not part of the config.

    Attributes:
        run_folder: The folder of the run; ``None`` for commands that only measure or try a few steps.
        changes: The options that differ from those of the run that is resumed.
        ended: Whether there was nothing to do, because ``--ckpt_path auto`` found a run that has reached its end.
        lost: Knows whether another process of the run was lost.
    """

    def __init__(self, args: list[str], signals: StopSignals, callbacks: Sequence[Callback] = ()) -> None:
        self.run_folder: RunFolder | None = None
        self.changes: list[Change] = []
        self.signals = signals
        self.further_callbacks = callbacks
        self.ended = False
        settings = arguments.PARSER_SETTINGS
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            parser_kwargs={**settings, **dict.fromkeys(self.subcommands(), settings)},
            args=args,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainingCLI":
        """Return the object itself: a copied model refers to it, and Lightning's parser cannot be copied."""
        return self

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the methods of the Trainer that are commands, each with the parameters that are not options."""
        return dict(arguments.COMMANDS)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed."""
        arguments.add_seed(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the Trainer, the module and the data."""
        arguments.add_trainer(parser)
        arguments.add_module_and_data(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the folder of the run and its replicas."""
        arguments.add_run_dir(parser)
        arguments.add_replicas(parser)

    def _parse_ckpt_path(self) -> None:
        """Read nothing from the checkpoint: the config defines the model, not a checkpoint's hyperparameters."""

    def before_instantiate_classes(self) -> None:
        """Choose where the run goes and what it loads, before anything is built."""
        config = self.config[self.subcommand]
        chosen = choose_run(str(self.subcommand), config)
        self.run_folder, self.ended = chosen.folder, chosen.ended
        if self.ended:
            self._compare_with_resumed(config, RunFolder(Path(config.run_dir)))
            return
        config.ckpt_path = chosen.checkpoint
        parts.choose_devices(config.trainer)
        if self.run_folder is not None:
            self._compare_with_resumed(config, self.run_folder)
            parts.set_save_dir(config.trainer.logger, self.run_folder)
            if chosen.checkpoint is None:
                self.run_folder.wandb_id.unlink(missing_ok=True)

    def _compare_with_resumed(self, config: Any, folder: RunFolder) -> None:
        """Find the options that differ from those of the run that is resumed, and refuse those that may not.

        A run that starts from a checkpoint of another run in a folder of its own may have other options.
        """
        if not self.ended and config.ckpt_path is None:
            return
        own = folder.config.exists()
        run = folder if own else RunFolder.of_checkpoint(Path(config.ckpt_path))
        if run is not None:
            parser = self._parser(self.subcommand)
            self.changes = changes_since(run, _resolved_config(parser, config), parser)
            check_changes(run, self.changes, config.allow_changes or not own)

    def instantiate_classes(self) -> None:
        """Build everything with the global generators keyed by (seed, "init")."""
        if self.ended:
            return
        seed = arguments.checked_seed(self.config[self.subcommand].seed_everything)
        with rng.forked(seed, "init"):
            super().instantiate_classes()
        if (grid := self.config_init[self.subcommand].replicas) is not None:
            replicas = grid.replicas(seed)
            self.model = ReplicatedModule(self.model, replicas, grid.engine, grid.steps_per_call)
            self.datamodule = ReplicatedData(self.datamodule, replicas)
        if checkpoint := self.config[self.subcommand].ckpt_path:
            check_fits(Path(checkpoint), self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the configured Trainer with what every run has: CSV, checkpoints, its record and guards."""
        config, settings = self.config[self.subcommand], self.config_init[self.subcommand].trainer
        callbacks = [*parts.as_list(settings.callbacks), *self.further_callbacks]
        loggers = parts.as_list(settings.logger)
        replicated = self.config_init[self.subcommand].replicas is not None
        parts.add_progress_bar(callbacks, settings.enable_progress_bar, replicated)
        if self.run_folder is not None and not settings.fast_dev_run:
            loggers.insert(0, CSVLogger(str(self.run_folder.path), resume=config.ckpt_path is not None))
            resolved = _resolved_config(self._parser(self.subcommand), config)
            record = RunRecord(self.run_folder, resolved, _as_settings(config), self.changes)
            checkpoints = settings.enable_checkpointing is not False
            parts.add_recording(callbacks, record, self.run_folder, replicated, checkpoints, self.signals)
            kwargs["default_root_dir"] = str(self.run_folder.path)
        kwargs["plugins"] = parts.run_plugins(settings)
        if self.subcommand == "fit" and not replicated:
            parts.add_guard(callbacks)
        if not parts.has_kind(callbacks, StopOnSignal):
            self.signals.leave_interruptions()
        trainer = super().instantiate_trainer(callbacks=callbacks, logger=loggers or False, **kwargs)
        if self.run_folder is not None and not settings.fast_dev_run:
            set_run_folder(trainer, self.run_folder)
        self.lost = parts.watch_processes(trainer, self.run_folder)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if self.ended:
            if is_first_process():
                print(f"The run in {self.config[subcommand].run_dir} has reached its end already")
            return
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as ended:  # stopped on request: what was logged so far is complete
            self.finish()
            if isinstance(ended, SIGTERMException):  # Lightning raises it with code 0
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        except Exception as error:
            if (lost := self.lost.cause_of(error)) is not None:
                raise lost from error
            raise
        finally:  # Lightning skips it when another callback fails while it handles the failure of a run
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StopOnSignal):
                    callback.teardown(self.trainer, self.model, subcommand)

    def after_fit(self) -> None:
        """Print where the run is."""
        if self.run_folder is not None and self.trainer.is_global_zero and self.run_folder.path.exists():
            print(f"The run is in {self.run_folder.path}")

    def after_validate(self) -> None:
        """Print what was measured."""
        if self.trainer.is_global_zero:
            for name, value in self.trainer.callback_metrics.items():
                print(f"{name}: {value.item():.6g}")

    after_test = after_validate

    def print_end_screen(self) -> None:
        """Print what a run that has reached its end came to, on the first process."""
        if self.run_folder is None or not self.trainer.is_global_zero or not self.run_folder.finished.exists():
            return
        for line in end_screen(self.run_folder):
            print(line)

    def finish(self) -> None:
        """End the loggers that must be ended."""
        if self.ended:
            return
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.finish()


def _resolved_config(parser: LightningArgumentParser, config: Any) -> str:
    """Write out the whole config of a command, without what belongs to this run only."""
    config = copy.deepcopy(config)
    for name in ("config", "resume", "allow_changes"):
        config.pop(name, None)
    config.run_dir = config.ckpt_path = None
    parts.set_save_dir(config.trainer.logger, None)
    return parser.dump(config, skip_none=False)


def _as_settings(config: Any) -> dict[str, Any]:
    """Return the config of a command as nested settings."""
    settings = copy.deepcopy(config)
    for name in ("config", "resume", "allow_changes"):
        settings.pop(name, None)
    return settings.as_dict()


def train(args: list[str], signals: StopSignals | None = None, callbacks: Sequence[Callback] = ()) -> TrainingCLI:
    """Run one training command to its end.

    Args:
        args: Command line after ``lnsgd``. A config that ships with lnsgd may be given by its name, ``--config mnist``.
        signals: Signals that stop the run, noted so far. Without them, signals are noted here, and a signal that
            came too late to stop the run is raised again after it. Commands that only measure are not stopped but
            ended by a signal.
        callbacks: Further callbacks of the Trainer, which are not part of the config.

    Raises:
        ValueError: the config is wrong.
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
    for package in ("pytorch_lightning", "lightning.pytorch"):  # they share one logger, that of the last one imported
        logging.getLogger(f"{package}.utilities.rank_zero").addFilter(_is_relevant)
    args = with_config_paths(args)
    check_config_files(args)
    args = with_resumed_run(args)
    with released_at_end(), warnings.catch_warnings():
        for message in _IRRELEVANT_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            cli = TrainingCLI(args, signals, callbacks)
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
        except ArgumentError as error:
            raise ValueError(one_line(error, lambda: arguments.option_names(args[0]))) from error
        cli.finish()
    return cli


def check_config_files(args: list[str]) -> None:
    """Check that each config named on the command line can be read; the parser would not say which one cannot.

    Args:
        args: Arguments of the command, among them ``--config FILE`` or ``--config=FILE``.

    Raises:
        ValueError: a config is not YAML or holds no settings.
    """
    given = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg in ("--config", "-c")]
    given += [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]
    for path in map(Path, given):
        try:
            content = load_yaml(path)
        except UnreadableError as error:
            raise ValueError(f"--config {path} is not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"--config {path} holds no settings; write `name: value` pairs as in configs/mnist.yaml")


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_IRRELEVANT_INFO)
