"""Find the configs of figures and read single settings from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsgd.untrusted.tables import naming
from lnsgd.untrusted.texts import load_yaml


def shipped_config(name: str) -> Path:
    """Return a config as shipped with the package.

    Args:
        name: Path below ``configs/``.
    """
    return Path(__file__).parents[2] / "configs" / name


def read_setting(config: Path, name: str) -> Any:
    """Read one setting of a config, so that a figure does not repeat it.

    Args:
        config: The file: a shipped config, or the resolved ``config.yaml`` of a run.
        name: The setting as on the command line, such as ``model.net.widths``. Of a list of callbacks, a class is
            chosen by its name: ``trainer.callbacks.ClusterCount.tolerance``.

    Raises:
        ValueError: the config does not have the setting.

    Example:
        >>> read_setting(shipped_config("mnist.yaml"), "model.net.widths")
        [784, 600, 10]
    """
    with naming(config):
        value = load_yaml(config)
    for part in name.split("."):
        found = _child(value, part)
        if found is None:
            raise ValueError(f"{config} has no setting {name!r}; {part!r} is missing there")
        (value,) = found
    return value


def _child(value: Any, part: str) -> tuple[Any] | None:
    """Return what a name leads to, if it leads anywhere; ``init_args`` and ``class_path`` are left out of names."""
    if isinstance(value, list):
        classes = {str(item["class_path"]).rpartition(".")[2]: item for item in value if isinstance(item, Mapping)}
        return (classes[part],) if part in classes else None
    if isinstance(value, Mapping):
        if part in value:
            return (value[part],)
        return _child(value.get("init_args"), part)
    return None
