"""Private and version-dependent interfaces of transformers."""

import sys
from types import FrameType
from typing import Any


def shifts_labels(module: Any) -> bool:
    """Return whether a causal language model of transformers is in a module: it takes its input tokens as labels.

    Tried with transformers 5.24.

    Args:
        module: Any module.
    """
    # A language-modelling head of transformers says its kind by `loss_type`, or else by its name only.
    # XLNet predicts tokens in another order, so that its labels are not shifted.
    parts = [part for part in module.modules() if hasattr(part, "loss_type") and hasattr(part, "config")]
    names = [type(part).__name__ for part in parts]
    return any(part.loss_type == "ForCausalLM" for part in parts) or any(
        name.endswith("LMHeadModel") and not name.startswith("XLNet") for name in names
    )


def calling_transformers_trainer() -> Any:
    """Return the Trainer of transformers that is calling one of its callbacks, which it does not pass to them.

    Tried with transformers 5.24.

    Raises:
        ValueError: no Trainer is calling.
    """
    from transformers import Trainer

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), Trainer):
            return found
        frame = frame.f_back
    raise ValueError("TransformersCallback: its Trainer was not found; give it, trainer=trainer")
