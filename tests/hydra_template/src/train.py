"""The training of the project, as the template has it."""

import hydra
import lightning as L
from lightning import Trainer
from omegaconf import DictConfig


def instantiate_all(configs: DictConfig | None) -> list:
    """Return the callbacks or loggers of a config."""
    return [hydra.utils.instantiate(config) for config in (configs or {}).values() if "_target_" in config]


def train(cfg: DictConfig) -> Trainer:
    """Train by a config."""
    L.seed_everything(cfg.seed, workers=True)
    datamodule = hydra.utils.instantiate(cfg.data)
    model = hydra.utils.instantiate(cfg.model)
    callbacks = instantiate_all(cfg.get("callbacks"))
    logger = instantiate_all(cfg.get("logger"))
    trainer = hydra.utils.instantiate(cfg.trainer, callbacks=callbacks, logger=logger)
    trainer.fit(model=model, datamodule=datamodule, ckpt_path=cfg.get("ckpt_path"))
    return trainer
