"""Private and version-dependent interfaces of both Lightnings, ``pytorch_lightning`` and ``lightning``."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, TypeGuard

# Packages whose classes have the hooks that a user may override.
_LIBRARIES = ("lightning", "lightning_fabric", "pytorch_lightning", "torch")


def attached_trainer(module: Any) -> Any | None:
    """Return the Trainer that a LightningModule or a LightningDataModule is attached to, or ``None``.

    ``module.trainer`` raises without one. Tried with Lightning 2.6.6.

    Args:
        module: The module; also one whose ``__init__`` has not run yet.
    """
    attributes = vars(module)
    return attributes.get("_trainer", attributes.get("trainer"))


def is_of_unified_package(instance: Any) -> bool:
    """Return whether the class of an object is one of ``lightning.pytorch``, or derives from one of them alone.

    Tried with Lightning 2.6.6.

    Args:
        instance: A Trainer, or what belongs to one; also a weak reference to it.
    """
    try:
        packages = [base.__module__.partition(".")[0] for base in instance.__class__.__mro__]
    except ReferenceError:  # the Trainer is gone
        return False
    return "lightning" in packages and "pytorch_lightning" not in packages


def is_logger(instance: Any, *names: str) -> bool:
    """Return whether the class of a logger is, or derives from, a class with one of some names.

    Loggers are told by their names, because there may be classes of either package, of which one need not be imported.
    Tried with Lightning 2.6.6, both as ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        instance: A logger.
        names: Names of classes, such as ``TensorBoardLogger``.
    """
    return any(base.__name__ in names for base in type(instance).__mro__)


def is_lightning_module(instance: Any) -> TypeGuard[Any]:
    """Return whether an object is a LightningModule of either package.

    Tried with Lightning 2.6.6, both as ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        instance: Any object.
    """
    names = ("pytorch_lightning.core.module", "lightning.pytorch.core.module")
    return any(base.__module__ in names and base.__name__ == "LightningModule" for base in type(instance).__mro__)


@contextmanager
def without_logging(module: Any) -> Iterator[None]:
    """Let what the LightningModules within a module log in this context go nowhere.

    A ``forward`` that calls ``self.log`` would add to the metrics of training. Tried with Lightning 2.6.6.

    Args:
        module: Any module of torch.
    """
    modules = [part for part in module.modules() if is_lightning_module(part)]
    before = [{name: vars(part)[name] for name in _LOGGING if name in vars(part)} for part in modules]
    for part in modules:
        vars(part).update(dict.fromkeys(_LOGGING, lambda *_, **__: None))
    try:
        yield
    finally:
        for part, had in zip(modules, before):
            for name in _LOGGING:
                vars(part).pop(name, None)
            vars(part).update(had)


_LOGGING = ("log", "log_dict")


def is_overridden(method: str, instance: Any) -> bool:
    """Return whether an object, or a class of the user's, defines a method that a class of Lightning or torch has.

    Lightning's function of this name knows only the classes of its own package. Tried with Lightning 2.6.6, both as
    ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        method: Name of the method.
        instance: A module, a DataModule or a callback.
    """
    if method in vars(instance):
        return True
    owner = next((base for base in type(instance).__mro__ if method in vars(base)), object)
    package = owner.__module__.partition(".")[0]
    return owner is not object and owner.__module__ != "lnsgd.lightning" and package not in _LIBRARIES


def state_key(callback: Any, identity: Mapping[str, Any]) -> str:
    """Return the name of a callback's state in a checkpoint, from its class and what identifies it among others.

    Tried with Lightning 2.6.6.

    Args:
        callback: The callback.
        identity: Settings in which two callbacks of its class differ.
    """
    return callback._generate_state_key(**identity)


def checkpoint_interval(callback: Any) -> int:
    """Return after how many training steps a ``ModelCheckpoint`` of Lightning saves; 0 for other callbacks.

    Tried with Lightning 2.6.6.

    Args:
        callback: Any callback.
    """
    return getattr(callback, "_every_n_train_steps", 0)


def ignore_signals(trainer: Any) -> None:
    """Let a Trainer set no signal handlers.

    Tried with Lightning 2.6.6.

    Args:
        trainer: The Trainer, before it trains.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None


def add_optimizer_steps(trainer: Any, steps: int) -> None:
    """Count optimizer steps in ``trainer.global_step`` that no optimizer of Lightning has taken.

    Tried with Lightning 2.6.6, in manual optimization.

    Args:
        trainer: The Trainer.
        steps: Number of steps.
    """
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counter in (progress.total, progress.current):
        counter.ready += steps
        counter.completed += steps


def epochs_processed(trainer: Any) -> int:
    """Return the number of epochs whose batches have all been processed, in the current call of ``fit``.

    Tried with Lightning 2.6.6.

    Args:
        trainer: The Trainer.
    """
    return trainer.fit_loop.epoch_progress.current.processed


def forget_initial_numbers(trainer: Any, module: Any, names: Collection[str]) -> None:
    """Forget numbers that were logged under some names before the first step, if ``log`` is called later than that.

    Lightning takes a number that was logged in ``on_train_start`` as that of the first epoch, and shows it at the end
    of the epoch instead of what was logged after batches. Tried with Lightning 2.6.6.

    Args:
        trainer: The Trainer.
        module: The module in training, whose ``log`` will be called.
        names: Names of the numbers.
    """
    initial = "on_train_start"
    if module._current_fx_name != initial:
        for logged in (trainer._results or {}).values():
            if logged.meta.fx == initial and logged.meta.name in names:
                logged.reset()


def weight_averaging(trainer: Any) -> Any | None:
    """Return the callback of Lightning that averages the weights in a Trainer; ``None`` if there is none.

    This is a ``WeightAveraging``, such as ``EMAWeightAveraging``, or a ``StochasticWeightAveraging``, of either package
    of Lightning. Tried with Lightning 2.6.6.

    Args:
        trainer: The Trainer.
    """
    return next((one for one in trainer.callbacks if _accompanies(one) or _ends_with_averages(one)), None)


def _accompanies(callback: Any) -> bool:
    """Return whether a callback keeps averages beside the trained weights. Tried with Lightning 2.6.6."""
    return any(kind.__name__ == "WeightAveraging" for kind in type(callback).__mro__) and hasattr(
        callback, "_average_model"
    )


def _ends_with_averages(callback: Any) -> bool:
    """Return whether a callback replaces the trained weights when training ends. Tried with Lightning 2.6.6."""
    return any(kind.__name__ == "StochasticWeightAveraging" for kind in type(callback).__mro__)


def averages_in_training(callback: Any) -> Any | None:
    """Return the module with the averages that a ``WeightAveraging`` keeps; ``None`` for other callbacks.

    Its parameters and buffers have the names that they have in the trained module. Tried with Lightning 2.6.6.

    Args:
        callback: What `weight_averaging` returns.
    """
    return callback._average_model.module if _accompanies(callback) else None


def averages_at_the_end(callback: Any, trainer: Any) -> dict[str, Any] | None:
    """Return the averages by name by which a ``StochasticWeightAveraging`` replaces the weights in ``on_train_end``.

    The result is empty if the module holds them already, as with batch normalization, whose statistics are taken in an
    epoch of its own; and ``None`` for other callbacks, and if training ended before the averaging did. Buffers are not
    averaged. Tried with Lightning 2.6.6.

    Args:
        callback: What `weight_averaging` returns.
        trainer: The Trainer, in its hook ``on_train_end``.
    """
    if not _ends_with_averages(callback) or callback._average_model is None or callback.n_averaged is None:
        return None
    ended = trainer.current_epoch - 1  # Lightning has counted the last epoch already
    if callback._model_contains_batch_norm and callback._max_epochs != -1:
        return {} if ended == callback.swa_end + 1 else None
    averages = dict(callback._average_model.named_parameters())
    return averages if ended == callback.swa_end or callback._max_epochs == -1 else None


def is_updating_averages(callback: Any, trainer: Any) -> bool:
    """Return whether an epoch trains nothing, but takes the statistics of batch normalization of averaged weights.

    Tried with Lightning 2.6.6.

    Args:
        callback: What `weight_averaging` returns.
        trainer: The Trainer, within an epoch.
    """
    return (
        _ends_with_averages(callback)
        and bool(callback._model_contains_batch_norm)
        and callback._max_epochs != -1
        and trainer.current_epoch == callback.swa_end + 1
    )


def begin_next_epoch(checkpoint: dict[str, Any], max_steps: int) -> None:
    """Let a run that is limited by steps continue from the end of an epoch with the first batch of the next epoch.

    Lightning takes such a run (``max_steps`` is set) for one that was stopped within the epoch, and trains another
    batch in it. A checkpoint that was written within an epoch stays as it is. Tried with Lightning 2.6.6.

    Args:
        checkpoint: The whole content of a checkpoint file; changed in place. A file of weights alone stays as it is.
        max_steps: Limit of the Trainer; -1 without a limit.
    """
    if max_steps == -1 or "loops" not in checkpoint:
        return
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
    if not epochs["total"]["ready"] == epochs["total"]["started"] == epochs["total"]["processed"]:
        return
    for counts in (epochs["total"], epochs["current"]):
        counts["completed"] = counts["processed"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def sampler_within(sampler: Any) -> Any:
    """Return the user's sampler inside Lightning's ``DistributedSamplerWrapper``; ``None`` for any other sampler.

    Tried with Lightning 2.6.6, both as ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        sampler: The sampler of a DataLoader, as the Trainer holds it.
    """
    if all(base.__name__ != "DistributedSamplerWrapper" for base in type(sampler).__mro__):
        return None
    return sampler.dataset._sampler


def loader_request(trainer: Any, split: str) -> Callable[[], Any] | None:
    """Return the function by which Lightning would ask for the loader of a split; ``None`` if there is none.

    Tried with Lightning 2.6.6.

    Args:
        trainer: A Trainer that fits.
        split: ``train``, ``val`` or ``test``.
    """
    fit = trainer.fit_loop
    loop = {"train": fit, "val": fit.epoch_loop.val_loop, "test": trainer.test_loop}[split]
    source = loop._data_source
    return None if source.instance is None or not source.is_defined() else source.dataloader


def transferred(trainer: Any, batch: Any) -> Any:
    """Return a batch on the device after the hooks ``on_before_batch_transfer`` to ``on_after_batch_transfer``.

    Tried with Lightning 2.6.6.

    Args:
        trainer: A Trainer with a module.
        batch: A batch of a DataLoader.
    """
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def loaders_of(loaders: Any) -> Any:
    """Return the loaders within a ``CombinedLoader`` of either package, any other object as it is.

    Tried with Lightning 2.6.6, both as ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        loaders: What the Trainer holds for a split.
    """
    is_combined = any(base.__name__ == "CombinedLoader" for base in type(loaders).__mro__)
    return loaders.iterables if is_combined else loaders


@contextmanager
def validating(trainer: Any) -> Iterator[None]:
    """Let a Trainer of either package say that it validates.

    Tried with Lightning 2.6.6, both as ``pytorch_lightning`` and as ``lightning.pytorch``.

    Args:
        trainer: A Trainer that runs.
    """
    state = trainer.state
    stage = state.stage
    state.stage = type(stage)("validate")
    try:
        yield
    finally:
        state.stage = stage


def validation_covers_split(trainer: Any) -> bool:
    """Return whether the validation that starts now covers the whole split and follows the last step of an epoch.

    Tried with Lightning 2.6.6.

    Args:
        trainer: A Trainer whose validation starts.
    """
    loader = trainer.val_dataloaders
    return (
        trainer.state.fn == "fit"
        and not trainer.sanity_checking
        and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        and isinstance(loader, Sized)
        and trainer.num_val_batches == [len(loader)]
    )


def script_launcher() -> Any:
    """Return the class of the launcher that the strategy ``ddp`` has by default.

    Tried with Lightning 2.6.6.
    """
    from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

    return _SubprocessScriptLauncher


def start_child_scripts(launcher: Any) -> None:
    """Start the further processes of a run by a `script_launcher`.

    Tried with Lightning 2.6.6.

    Args:
        launcher: The launcher.
    """
    launcher._call_children_scripts()


def set_launcher(strategy: Any, launcher: Any) -> None:
    """Give a strategy another launcher.

    Tried with Lightning 2.6.6.

    Args:
        strategy: The strategy of a Trainer that does not run yet.
        launcher: The launcher.
    """
    strategy._launcher = launcher


def limit_threads(num_processes: int) -> None:
    """Limit the threads of this process by the number of processes on this machine, unless the user has set them.

    Tried with Lightning 2.6.6.

    Args:
        num_processes: Number of processes.
    """
    from lightning_fabric.utilities.distributed import _set_num_threads_if_needed

    _set_num_threads_if_needed(num_processes=num_processes)
