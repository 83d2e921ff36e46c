"""A long offline run has as many files as a short one, and bytes in proportion to its steps."""

from pathlib import Path

import pytest
import wandb

from lnsgd.cli import main
from tests.loggers.wandb.offline_runs import SMALL


def file_sizes(folder: Path) -> list[int]:
    """Return the sizes of the files below a folder, without links."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def test_number_of_files_does_not_grow_with_the_steps(alone: Path) -> None:
    """The runs have all measures and, at the end, a histogram and a picture; they log every step."""
    found = []
    for steps in (5, 25, 45):
        length = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps), "--trainer.log_every_n_steps", "1"]
        main(["fit", *SMALL, "--run_dir", f"{steps}", *length, "--trainer.check_val_every_n_epoch", "10"])
        wandb.teardown()
        found.append(file_sizes(alone / f"{steps}" / "wandb"))
    assert len({len(sizes) for sizes in found}) == 1
    short, middle, long = map(sum, found)
    assert long - middle == pytest.approx(middle - short, rel=0.1)  # the first steps cost as much as later ones
