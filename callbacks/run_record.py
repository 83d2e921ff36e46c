"""Leaves in the run's folder what is needed to run it again: the config and the initial weights."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from safetensors.torch import save_file

from lnsgd.run_folder import RunFolder, whole_file


class RunRecord(Callback):
    """Writes ``config.yaml`` and ``init.safetensors`` when training starts, and the config to loggers.

    Args:
        run: The run's folder.
        config: The resolved config as YAML.
        settings: The same as nested dictionaries, for loggers.
    """

    def __init__(self, run: RunFolder, config: str, settings: dict[str, Any]) -> None:
        self.run = run
        self.config = config
        self.settings = settings

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files; a resumed run keeps its initial weights."""
        with whole_file(self.run.config) as part:
            part.write_text(self.config)
        if trainer.global_step == 0:
            weights = {name: value.contiguous() for name, value in pl_module.state_dict().items()}
            with whole_file(self.run.init) as part:
                save_file(weights, part)
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)
