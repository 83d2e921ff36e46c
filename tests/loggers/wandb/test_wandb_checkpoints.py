"""Checkpoints are sent as artifacts to a small server on this machine."""

from pathlib import Path

import yaml

from lnsgd.cli import main
from tests.loggers.wandb.server import LOGGER, WandbServer
from tests.stopped_runs import CONFIG, EPOCH_STEPS, fit_until_stopped, write_configs


def test_all_checkpoints_are_artifacts(server: WandbServer, tmp_path: Path) -> None:
    """Saved at the end of three epochs and at a stop within the second; the last is final."""
    write_configs(tmp_path, step=EPOCH_STEPS + 2)
    options = ["--run_dir", "run", "--ckpt_path", "auto", *LOGGER, "--trainer.logger.log_model", "all"]
    fit_until_stopped("--config", "stopped.yaml", *options)
    main(["fit", "--config", "plain.yaml", *options])
    models = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert {model["artifactCollectionName"] for model in models} == {f"model-{next(iter(server.runs))}"}
    aliases = [{alias["alias"] for alias in model["aliases"]} for model in models]
    assert aliases == [{"latest"}, {"latest"}, {"latest"}, {"latest"}, {"latest", "final"}]
    # The server stores the last two as one version.
    assert models[-1]["digest"] == models[-2]["digest"]
    assert len({model["digest"] for model in models}) == 4
    last = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    number = server.artifacts.index(models[-1]) + 1
    assert server.uploads[f"artifacts/A{number}/model.ckpt"] == last


def test_only_the_final_checkpoint_is_an_artifact(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(CONFIG)
    main(["fit", "--config", "plain.yaml", "--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "true"])
    (model,) = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert {alias["alias"] for alias in model["aliases"]} == {"latest", "final"}


def test_best_checkpoint_has_an_alias(server: WandbServer, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG)
    monitor = {"monitor": "val/loss", "mode": "max"}  # the loss falls, so the first is the best
    config["trainer"]["callbacks"].append(
        {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {**monitor, "save_last": True}}
    )
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "judged.yaml", "--run_dir", "run", *LOGGER, "--trainer.logger.log_model", "true"])
    models = [artifact for artifact in server.artifacts if artifact["artifactTypeName"] == "model"]
    assert [{alias["alias"] for alias in model["aliases"]} for model in models] == [
        {"latest", "best"},
        {"latest", "final"},
    ]
    assert models[0]["digest"] != models[1]["digest"]
