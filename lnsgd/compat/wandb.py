"""Private and version-dependent interfaces of Weights & Biases."""

from typing import Any


def wandb_options(logger: Any) -> dict[str, Any]:
    """Return the arguments with which Lightning's ``WandbLogger`` calls ``wandb.init``, to be read or changed.

    Tried with Lightning 2.6.6.

    Args:
        logger: The logger.
    """
    return logger._wandb_init


def set_wandb_id(logger: Any, run_id: str) -> None:
    """Let Lightning's ``WandbLogger`` continue a run of W&B.

    Tried with Lightning 2.6.6.

    Args:
        logger: The logger, before it has started a run.
        run_id: Id of the run in W&B.
    """
    logger._wandb_init["id"] = logger._id = run_id


def wandb_artifact_name(logger: Any) -> str | None:
    """Return the name that the user of Lightning's ``WandbLogger`` chose for checkpoints in W&B.

    Tried with Lightning 2.6.6.

    Args:
        logger: The logger.
    """
    return logger._checkpoint_name


def forget_wandb_process() -> None:
    """Let later runs start a process of W&B anew, and let the one that has died not report when this process ends.

    Tried with wandb 0.31.
    """
    from contextlib import suppress

    import wandb
    from wandb.sdk.lib import module

    with suppress(ConnectionError):
        wandb.teardown()
    module.unset_globals()
