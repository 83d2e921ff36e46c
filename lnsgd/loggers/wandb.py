"""Weights & Biases, never in the way of training."""

import os
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger as LightningWandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from lnsgd.run_folder import RunFolder


class WandbLogger(LightningWandbLogger):
    """Lightning's W&B logger that goes on offline: without a key, or where the server is not reached.

    What was kept offline is in the run's folder; at the end the command that sends it is printed. The
    run's id is kept there too (``wandb-run-id``), so that what goes on in that folder continues the same
    W&B run.

    Args:
        project: W&B project.
        save_dir: Folder of the run; ``lnsgd fit`` sets it.
        offline: Keep everything local, also where a key is set.
        options: Further arguments of ``wandb.init``, such as ``name``, ``group``, ``tags``.
    """

    def __init__(self, project: str = "lnsgd", save_dir: str = ".", offline: bool = False, **options: Any) -> None:
        super().__init__(project=project, save_dir=save_dir, **{k: v for k, v in options.items() if v is not None})
        self._offline = offline
        self._wandb_init.pop("anonymous", None)  # without effect in W&B, which says so at every start

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; started at the first call."""
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    def _start(self) -> Any:
        import wandb

        run_folder = RunFolder(Path(self.save_dir or "."))
        run_folder.path.mkdir(parents=True, exist_ok=True)
        if run_folder.wandb_id.exists():
            self._wandb_init["id"] = self._id = run_folder.wandb_id.read_text().strip()
        offline = self._offline or ("WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False))
        run = self._init_run("offline" if offline else None)
        if self.save_dir != ".":
            run_folder.wandb_id.write_text(f"{run.id}\n")
        return run

    def _init_run(self, mode: Literal["offline"] | None) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=10,
            finish_timeout=30,
            x_disable_stats=True,
            x_disable_viewer=True,
            x_disable_machine_info=True,
            disable_git=True,
            console="off",
        )
        try:
            return wandb.init(**{"settings": settings, **self._wandb_init, **({"mode": mode} if mode else {})})
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            if mode == "offline":
                raise
            rank_zero_info(f"W&B is not reached ({' '.join(str(error).split())}); this run is kept offline.")
            return self._init_run("offline")

    @rank_zero_only
    def finish(self) -> None:
        """Ends the W&B run, and says how to send it where it was kept offline."""
        if self._experiment is None:
            return
        run, self._experiment = self._experiment, None
        offline, folder = run.settings.mode == "offline" or run.offline, Path(run.dir).parent
        run.finish()
        if offline:
            rank_zero_info(f"W&B: this run was kept offline. Send it with: wandb sync {folder}")
