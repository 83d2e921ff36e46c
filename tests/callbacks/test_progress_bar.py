"""The progress bar shows the measures of label noise first, and whole numbers only."""

import io
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lnsgd.callbacks import ActiveNeurons, ClassAssociation, DistanceFromInit, HessianTrace, MeasureProgressBar
from lnsgd.callbacks.progress_bar import FittedBar
from lnsgd.data import InMemory
from lnsgd.models import MLP
from lnsgd.modules import Classifier

NUMBERS = {
    "train/batch_loss": 0.123456,
    "active": 0.40567,
    "val/loss": 0.25,
    "trace": 39.468,
    "distance": 15.9,
    "associated": 59.0,
}


def drawn(columns: int | None, numbers: dict[str, float]) -> str:
    """Return the line of a bar at step 35 of 78 in a terminal of a width; ``None``: not in a terminal."""
    bar = FittedBar(total=78, ncols=columns, file=io.StringIO(), smoothing=0)
    bar.set_description("Epoch 12", refresh=False)
    bar.n = 35
    bar.start_t -= 7  # five steps per second
    bar.set_postfix(numbers, refresh=False)
    line = str(bar)
    bar.close()
    return line


def test_four_measures_fit_into_80_columns() -> None:
    line = drawn(80, NUMBERS)
    assert len(line) == 80
    assert line.startswith("Epoch 12:  45%|")
    assert line.endswith(" <00:08 active=0.406 associated=59 distance=15.9 trace=39.5")


def test_large_numbers_take_the_room_of_the_bar() -> None:
    line = drawn(80, {"active": 0.00123456, "associated": 12345.0, "distance": 151.23, "trace": 1.234e6})
    assert line == "Epoch 12:  45% <00:08 active=0.00123 associated=12345 distance=151 trace=1.23e+6"


def test_number_without_room_is_left_out_as_a_whole() -> None:
    line = drawn(60, NUMBERS)
    assert len(line) <= 60
    assert line.endswith("active=0.406 associated=59")


@pytest.mark.parametrize("columns", [200, None])
def test_steps_and_losses_follow_where_there_is_room(columns: int | None) -> None:
    line = drawn(columns, NUMBERS)
    assert columns is None or len(line) == columns
    assert line.endswith(" trace=39.5 35/78 in 00:07  5.00it/s train/batch_loss=0.123 val/loss=0.25")


def test_without_measures_steps_and_losses_are_shown() -> None:
    line = drawn(80, {"train/batch_loss": 0.5})
    assert line.endswith("| <00:08 35/78 in 00:07  5.00it/s train/batch_loss=0.5")


def test_bar_of_a_run_shows_what_its_callbacks_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (80, 24))
    on_train = {"splits": ["train"]}
    measures = [HessianTrace(), DistanceFromInit(), ClassAssociation(**on_train), ActiveNeurons(**on_train)]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[*measures, MeasureProgressBar()],
    )
    torch.manual_seed(0)
    data = InMemory((torch.randn(12, 4), torch.randint(3, (12,))), batch_size=2)
    trainer.fit(Classifier(MLP([4, 5, 3])), data)
    shown = trainer.callback_metrics
    expected = [f"{name}={float(shown[name]):.3g}" for name in ("active", "associated", "distance", "trace")]
    last = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("Epoch 0: 100%")
    assert last.endswith(" ".join(expected))
    assert len(last) <= 80
