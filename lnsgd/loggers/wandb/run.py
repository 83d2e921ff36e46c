"""A run of Weights & Biases: started online where that can be, else offline; and ended."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.utilities import rank_zero_info

from lnsgd.loggers.wandb.attempts import Attempts, one_line

# Seconds until a server is taken for unreachable: at the start, and with what is left to send at the end.
_INIT_TIMEOUT, _FINISH_TIMEOUT = 10, 30


def start_run(offline: bool, **options: Any) -> Any:
    """A new run, or one that is gone on with.

    Without a key, or where the server is not reached or refuses, it is an offline run; that is said. The environment
    variable ``WANDB_MODE`` goes before the key.

    Args:
        offline: Keep everything local, also where a key is set.
        options: Arguments of ``wandb.init``.
    """
    import wandb

    local = offline or ("WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False))
    return _init(options, "offline" if local else None)


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
        rank_zero_info(f"W&B is not reached ({one_line(error)}); this run is kept offline.")
        if options.get("id") is not None:
            wandb.teardown()  # its process still holds the id of the run that did not start, and would refuse it
        return _init(options, "offline")


def is_offline(run: Any) -> bool:
    """Whether nothing of a run is sent."""
    return bool(run.settings.mode == "offline" or run.offline)


def received_step(run: Any, axis: str) -> int | None:
    """The last step that the server has of a run that was just started.

    Args:
        run: The run.
        axis: Name under which steps are logged.

    Returns:
        The step; -1 where the server has none; ``None`` where that is not known, because nothing is sent, or because
        the server says something that is no step.
    """
    if is_offline(run):
        return None
    said = run.summary.get(axis, -1) if run.resumed else -1
    if isinstance(said, int | float) and math.isfinite(said) and said >= -1:
        return int(said)
    rank_zero_info(f"W&B has {said!r:.60} as the last step of this run, which is none; what the run has noted counts.")
    return None


def finish_run(run: Any, attempts: Attempts) -> None:
    """Ends a run, and says how to send what was kept offline, or was not taken by the server in time.

    Args:
        run: The run.
        attempts: All that was sent to it.
    """
    offline, folder, incomplete = is_offline(run), Path(run.dir).parent, attempts.failed
    try:
        run.finish()
    except (TimeoutError, ConnectionError):
        incomplete = True
    if attempts.process_died:
        _forget_process()
    if incomplete and not offline:
        rank_zero_info(f"W&B has not got all of this run. Send it with: wandb sync {folder}")
    if offline:
        rank_zero_info(f"W&B: this run was kept offline. Send it with: wandb sync {folder}")


def _forget_process() -> None:
    """Lets later runs start a process of W&B anew, and the dead one have no last word when this process ends."""
    import wandb
    from wandb.sdk.lib import module

    with suppress(ConnectionError):
        wandb.teardown()
    module.unset_globals()
