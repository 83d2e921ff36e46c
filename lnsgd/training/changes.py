"""Which options may differ when a run is resumed.

Options that decide what is trained and what its numbers mean belong to the experiment: the model, the data, the seed,
the replicas, the precision, the batches of the Trainer. A run is not resumed with others unless that is allowed
explicitly. How long it is trained, on which machine, and what is shown, logged and observed may differ.
"""

import copy
import sys
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentError
from pytorch_lightning.cli import LightningArgumentParser

from lnsgd.records.changes import Change, changed_options, config_in_effect
from lnsgd.runs.folder import RunFolder
from lnsgd.untrusted.class_paths import check_class_paths
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import read_yaml

# Options that say where a run goes and how it is resumed; they are no part of its config.
LOCATION_OPTIONS = ("config", "run_dir", "ckpt_path", "resume", "allow_changes", "weights_only")

# Options, with all that are within them, that may differ.
_FREE = (
    # how long
    *("trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps", "trainer.max_time"),
    # where and how fast
    *("trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.plugins"),
    *("trainer.benchmark", "trainer.deterministic", "model.init_args.compile_mode", "model.init_args.channels_last"),
    *("replicas.engine", "replicas.steps_per_call", "trainer.default_root_dir", "data.init_args.data_dir"),
    *("data.init_args.eval_batch_size", "data.init_args.num_workers", "data.init_args.pin_memory"),
    *("data.init_args.persistent_workers", "data.init_args.prefetch_factor"),
    # what is shown, logged and checked
    *("trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps"),
    *("trainer.enable_checkpointing", "trainer.profiler", "trainer.detect_anomaly", "trainer.num_sanity_val_steps"),
    *("trainer.enable_autolog_hparams", "trainer.model_registry", "trainer.inference_mode", "trainer.fast_dev_run"),
)

# Callbacks of Lightning that change what is trained. All others observe, save or stop.
_TRAINING_CALLBACKS = {
    *("StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging", "GradientAccumulationScheduler"),
    *(
        "BaseFinetuning",
        "BackboneFinetuning",
        "ModelPruning",
        "BatchSizeFinder",
        "LearningRateFinder",
        "LambdaCallback",
    ),
}

# Number of options that a refusal names.
_NAMED = 8


def changes_since(run: RunFolder, resolved: str, parser: LightningArgumentParser) -> list[Change]:
    """Return the options of a command that differ from those of the run that it resumes.

    Args:
        run: The folder of the run.
        resolved: The resolved config of the command, as YAML.
        parser: The parser of the command, which fills in options that the version of the run did not have.

    Raises:
        ValueError: a record of the run is damaged.
    """
    after = _of_experiment(read_yaml(resolved))
    with naming(run.config):
        before = config_in_effect(run)
        if not isinstance(before, Mapping):
            raise UnreadableError("it holds no settings")
    before = _of_experiment(before)
    changes = changed_options(before, after)
    if changes:
        changes = changed_options(_resolved_anew(before, after, parser), after)
    return changes


def check_changes(run: RunFolder, changes: list[Change], allowed: bool) -> None:
    """Refuse to resume a run with another experiment.

    Args:
        run: The folder of the run.
        changes: What differs, see `changes_since`.
        allowed: Whether the experiment may be changed.

    Raises:
        ValueError: options of the experiment differ, which is not allowed.
    """
    refused = [change for change in changes if not is_free(change)]
    if refused and not allowed:
        more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        raise ValueError(
            f"{run.path} was trained with other options: {', '.join(map(str, refused[:_NAMED]))}{more}; resume it with "
            f"its own (lnsgd fit --resume {run.path}), give another --run_dir for a new run, or add --allow_changes, "
            f"which notes the change in {run.changes.name}"
        )


def is_free(change: Change) -> bool:
    """Return whether an option may differ when a run is resumed.

    Example:
        >>> is_free(Change("trainer.max_epochs", 2, 3)), is_free(Change("seed_everything", 0, 1))
        (True, False)
    """
    if change.option == "trainer.callbacks":
        return not any(_changes_training(str(one.get("class_path", ""))) for one in (*change.before, *change.after))
    return any(change.option == name or change.option.startswith(f"{name}.") for name in _FREE)


def _changes_training(class_path: str) -> bool:
    """Return whether a callback is one of those that change what is trained, or derives from one."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    names = {base.__name__ for base in kind.__mro__} if isinstance(kind, type) else {name}
    return bool(names & _TRAINING_CALLBACKS)


def _of_experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in LOCATION_OPTIONS}


def _resolved_anew(before: Mapping[str, Any], after: Mapping[str, Any], parser: LightningArgumentParser) -> Any:
    """Resolve the config of a run as this version of lnsgd does; return it as it is if that cannot be done.

    No class is imported that the command does not name itself, since the run may come from anyone.
    """
    own = {str(value).partition(".")[0] for value in _class_paths(after)}
    try:
        check_class_paths(before, own)
        parsed = parser.parse_object(copy.deepcopy(dict(before)))  # the parser replaces what it has parsed
        for name in LOCATION_OPTIONS:
            parsed.pop(name, None)
        return _of_experiment(read_yaml(parser.dump(parsed, skip_none=False)))
    except (ArgumentError, UnreadableError, TypeError, ValueError):
        return before


def _class_paths(config: Any) -> list[str]:
    if isinstance(config, Mapping):
        own = [str(config["class_path"])] if "class_path" in config else []
        return own + [path for value in config.values() for path in _class_paths(value)]
    return [path for value in config for path in _class_paths(value)] if isinstance(config, list) else []
