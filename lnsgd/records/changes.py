"""``changes.json``: with which other options a run was resumed, and from which step on.

``config.yaml`` keeps the options with which the run was started. Each entry of ``changes.json`` has what was changed
when the run was resumed, and the whole config that holds from then on.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lnsgd import __version__
from lnsgd.records.provenance import now
from lnsgd.runs.folder import RunFolder
from lnsgd.runs.writing import whole_file
from lnsgd.untrusted.files import UnreadableError
from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_json, load_yaml

# The version of the format.
VERSION = 1

_CALLBACKS = "trainer.callbacks"


@dataclass(frozen=True)
class Change:
    """One option that was changed.

    Attributes:
        option: Its path in the config, such as ``model.init_args.label_noise.init_args.p``.
        before: Its value before; ``None`` also if the option did not exist.
        after: Its value since. Of the callbacks, ``before`` lists those that were removed, and ``after`` those that
            were added.
    """

    option: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Name the option as on the command line, with both values."""
        name = ".".join(part for part in self.option.split(".") if part not in ("init_args", "class_path"))
        before, after = (_shown(value) for value in (self.before, self.after))
        return f"{name} ({before} in the run, {after} now)"


@dataclass(frozen=True)
class ConfigChange:
    """The changes with which a run was resumed once.

    Attributes:
        step: Optimizer steps that were taken before.
        time: Date and time, in UTC, in ISO format.
        version: The version of lnsgd that resumed the run.
        changes: The options that differ from those that held before.
        config: The whole config that holds from this step on.
        started_from: The checkpoint, for a run that was started from one in the folder of another run.
    """

    step: int
    time: str
    version: str
    changes: tuple[Change, ...]
    config: Mapping[str, Any]
    started_from: str | None = None

    def __str__(self) -> str:
        """Say what was changed, and from which step on."""
        origin = f" (started from {self.started_from})" if self.started_from else ""
        return f"from step {self.step:,} on{origin}: {'; '.join(map(str, self.changes)) or 'the same options'}"


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a nested config into values by path; lists of nested configs by index, other lists as values.

    Args:
        config: The config.
    """
    return dict(_walk("", config))


def changed_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the options in which two configs differ. A missing option is one that is null, and 2 is 2.0.

    Callbacks are compared as a whole, whatever their order.

    Args:
        before: The one config.
        after: The other config.
    """
    callbacks = [_entries(config) for config in (before, after)]
    olds, news = (leaves(_without_callbacks(config)) for config in (before, after))
    changes = [
        Change(path, olds.get(path), news.get(path))
        for path in dict.fromkeys([*olds, *news])
        if _plain(olds.get(path)) != _plain(news.get(path))
    ]
    removed, added = _difference(*callbacks), _difference(*callbacks[::-1])
    return [*changes, Change(_CALLBACKS, removed, added)] if removed or added else changes


def append_change(
    run: RunFolder, step: int, changes: list[Change], config: Mapping[str, Any], started_from: str | None = None
) -> None:
    """Add what was changed to ``changes.json``, which is written whole or not at all.

    Args:
        run: The folder of the run.
        step: See `ConfigChange`.
        changes: See `ConfigChange`.
        config: See `ConfigChange`.
        started_from: See `ConfigChange`.

    Raises:
        ValueError: The file is damaged.
    """
    new = ConfigChange(step, now(), __version__, tuple(changes), config, started_from)
    content = {"version": VERSION, "changes": [_written(one) for one in [*read_changes(run), new]]}
    with whole_file(run.changes) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_changes(run: RunFolder) -> list[ConfigChange]:
    """Read ``changes.json``, in the order in which the run was resumed; nothing if there is no such file.

    Args:
        run: The folder of the run.

    Raises:
        ValueError: The file is damaged, or of a later version.
    """
    if not run.changes.exists():
        return []
    with naming(run.changes):
        content = load_json(run.changes)
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise UnreadableError("it is not a record of changes that this version of lnsgd knows")
        try:
            return [_read(one) for one in content["changes"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise UnreadableError(f"an entry is incomplete ({error})") from error


def config_in_effect(run: RunFolder) -> Any:
    """Return the config of a run with the changes that were made when it was resumed.

    Args:
        run: The folder of the run, which has a ``config.yaml``.

    Raises:
        ValueError: A file is damaged.
        OSError: A file cannot be opened.
    """
    changes = read_changes(run)
    return changes[-1].config if changes else load_yaml(run.config)


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    nested: Any = None
    if isinstance(value, Mapping) and value:
        nested = value.items()
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        nested = enumerate(value)
    if nested is None:
        yield path, value
        return
    for name, inner in nested:
        yield from _walk(f"{path}.{name}" if path else str(name), inner)


def _trainer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    trainer = config.get("trainer")
    return trainer if isinstance(trainer, Mapping) else {}


def _entries(config: Mapping[str, Any]) -> list[Any]:
    """Return the callbacks of a config, each with the arguments that are set."""
    found = _trainer(config).get("callbacks") or []
    entries = found if isinstance(found, list) else [found]
    return [{path: _plain(value) for path, value in leaves({"": one}).items() if value is not None} for one in entries]


def _without_callbacks(config: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {name: value for name, value in _trainer(config).items() if name != "callbacks"}
    return {**config, "trainer": trainer}


def _difference(some: list[Any], others: list[Any]) -> list[Any]:
    """Return the entries of a list that another does not have, each as often as it is missing."""
    left = list(others)
    found = []
    for one in some:
        if one in left:
            left.remove(one)
        else:
            found.append({path.lstrip("."): value for path, value in one.items()})
    return found


def _plain(value: Any) -> Any:
    """Return a value in the form in which equal settings are equal: tuples are lists, and nothing is ``None``."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, Mapping) and not value else value


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return " and ".join(str(one.get("class_path", one)).rpartition(".")[2] for one in value)
    return "none" if value is None or value == [] else f"{value!s:.60}"


def _written(change: ConfigChange) -> dict[str, Any]:
    origin = {} if change.started_from is None else {"started_from": change.started_from}
    return {
        "step": change.step,
        "time": change.time,
        "lnsgd": change.version,
        **origin,
        "changes": [{"option": one.option, "before": one.before, "after": one.after} for one in change.changes],
        "config": change.config,
    }


def _read(entry: Any) -> ConfigChange:
    changes = tuple(Change(one["option"], one["before"], one["after"]) for one in entry["changes"])
    step, time, version, origin = entry["step"], entry["time"], entry["lnsgd"], entry.get("started_from")
    texts = [time, version, *(one.option for one in changes), *([] if origin is None else [origin])]
    if type(step) is not int or not isinstance(entry["config"], dict) or not all(isinstance(t, str) for t in texts):
        raise UnreadableError("a value is of another kind than lnsgd writes")
    return ConfigChange(step, time, version, changes, entry["config"], origin)
