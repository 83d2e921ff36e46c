"""Measuring in the training loops of other libraries. Each is imported when its name is first used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lnsgd.integrations.transformers import TransformersCallback

__all__ = ["TransformersCallback"]


def __getattr__(name: str) -> Any:
    """Import an integration when it is first used, because the library that it is for need not be installed."""
    if name != "TransformersCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from lnsgd.integrations.transformers import TransformersCallback
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("transformers", "accelerate"):
            raise
        raise ModuleNotFoundError(f"TransformersCallback needs {error.name}; pip install {error.name}") from error
    return TransformersCallback
