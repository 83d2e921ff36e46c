"""Start a W&B run, online if possible and otherwise offline, and end it."""

import math
import os
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.utilities import rank_zero_info

from lnsgd import compat
from lnsgd.loggers.wandb.sending import Sender, one_line

# Seconds after which a server counts as unreachable: at the start, and at the end with data left to send.
_INIT_TIMEOUT, _FINISH_TIMEOUT = 10, 30


def start_run(offline: bool, **options: Any) -> Any:
    """Start a new run, or continue one.

    Without a key, or if the server is unreachable or refuses, an offline run is started and reported. The environment
    variable ``WANDB_MODE`` has precedence over the key.

    Args:
        offline: Keep all data local, even if a key is set.
        options: Arguments of ``wandb.init``.
    """
    local = offline or ("WANDB_MODE" not in os.environ and not _has_key())
    return _init(options, "offline" if local else None)


def _has_key() -> bool:
    """Return whether runs can be sent, without a question to the user or the server."""
    import wandb

    if wandb.run is not None:  # ``login`` is false, with any key, while a run of the user is active
        return not is_offline(wandb.run)
    return wandb.login(prompt=False, verify=False)


def _init(options: dict[str, Any], mode: Literal["offline"] | None) -> Any:
    import wandb

    settings = wandb.Settings(
        init_timeout=_INIT_TIMEOUT,
        finish_timeout=_FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_disable_stats=True,
        x_disable_viewer=True,
        x_disable_machine_info=True,
        disable_git=True,
        console="off",
    )
    try:
        return wandb.init(**{"settings": settings, **options, **({"mode": mode} if mode else {})})
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        if mode == "offline":
            raise
        rank_zero_info(f"W&B is unreachable ({one_line(error)}); this run is kept offline.")
        if options.get("id") is not None:
            wandb.teardown()  # its process still holds the id of the run that did not start, and would refuse it
        return _init(options, "offline")


def is_offline(run: Any) -> bool:
    """Return whether a run is kept offline."""
    return bool(run.settings.mode == "offline" or run.offline)


def received_step(run: Any, axis: str) -> int | None:
    """Return the last step that the server has of a run that was just started.

    Args:
        run: The run.
        axis: Name under which steps are logged.

    Returns:
        The step; -1 if the server has none; ``None`` if it is unknown, because the run is kept offline or because the
        server answers with a value that is not a step.
    """
    if is_offline(run):
        return None
    answer = run.summary.get(axis, -1) if run.resumed else -1
    if isinstance(answer, int | float) and math.isfinite(answer) and answer >= -1:
        return int(answer)
    rank_zero_info(
        f"W&B has {answer!r:.60} as the last step of this run, which is not a step; the record in its folder counts."
    )
    return None


def finish_run(run: Any, sender: Sender) -> None:
    """End a run, and print how to send what was kept offline or was not accepted in time.

    Args:
        run: The run.
        sender: The sender of all its data.
    """
    offline, folder, incomplete = is_offline(run), Path(run.dir).parent, sender.failed
    try:
        run.finish()
    except (TimeoutError, ConnectionError):
        incomplete = True
    if sender.process_died:
        compat.forget_wandb_process()
    if incomplete and not offline:
        rank_zero_info(f"W&B has not received all of this run. Send it with: wandb sync {folder}")
    if offline:
        rank_zero_info(f"W&B: this run was kept offline. Send it with: wandb sync {folder}")
