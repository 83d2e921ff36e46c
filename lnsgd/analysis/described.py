"""Names of objects by what they are and how they are set, the same in every process."""

from typing import Any

from torch import nn

from lnsgd.callbacks.measurement_data import DataSource

# What changes no number that is measured: where data lies, in what pieces it is read, what is drawn.
_NO_SETTING = {"training", "histograms", "eval_batch_size", "data_dir"}

# Objects within an object that say what is measured.
_PARTS = ("loss", "label_noise", "augmentation")


def described(what: Any) -> dict[str, Any]:
    """Class and plain settings of an object: public attributes that are numbers, texts, or lists of them.

    Of a module also its structure and the settings of all modules within.

    Example:
        >>> from lnsgd.losses import HingeLoss
        >>> described(HingeLoss(beta=2.0))
        {'class': 'lnsgd.losses.HingeLoss', 'beta': 2.0}
    """
    kind = what if hasattr(what, "__qualname__") else type(what)
    settings: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}", **_plain_settings(what)}
    if isinstance(what, nn.Module):
        settings |= {"is": repr(what), "modules": [_plain_settings(module) for module in what.modules()]}
    for part in _PARTS:
        if (inner := vars(what).get(part) if hasattr(what, "__dict__") else None) is not None:
            settings[part] = described(inner)
    if isinstance(source := getattr(what, "source", None), DataSource):
        settings["source"] = source.identity
    return settings


def _plain_settings(what: Any) -> dict[str, Any]:
    public = {key: value for key, value in getattr(what, "__dict__", {}).items() if not key.startswith("_")}
    return {key: public[key] for key in sorted(public) if key not in _NO_SETTING and _is_plain(public[key])}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)
