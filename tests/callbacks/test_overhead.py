"""Measuring is kept to a part of the training time."""

import pytest
import pytorch_lightning as pl

from lnsgd.callbacks import overhead
from lnsgd.callbacks.measure import MeasureCallback
from lnsgd.callbacks.measurements import Measurement
from lnsgd.callbacks.overhead import Overhead
from lnsgd.data import MNIST
from lnsgd.losses import LogisticLoss
from lnsgd.models import MLP
from lnsgd.modules import Classifier


class Clock:
    """Time as a test wants it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(overhead, "perf_counter", clock)
    return clock


def test_a_measurement_is_affordable_once_training_took_enough_longer(clock):
    budget = Overhead("Trace", 0.05)
    budget.start()
    assert budget.affordable()
    with budget.measuring():
        clock.now += 2
    clock.now += 39.9
    assert not budget.affordable()
    clock.now += 0.2
    assert budget.affordable()
    with budget.measuring():
        clock.now += 2
    assert not budget.affordable()


def test_without_a_limit_all_is_affordable(clock):
    budget = Overhead("Trace", None)
    budget.start()
    with budget.measuring():
        clock.now += 1000
    assert budget.affordable()


def test_time_is_counted_where_a_measurement_fails(clock):
    budget = Overhead("Trace", 0.5)
    budget.start()
    with pytest.raises(KeyError), budget.measuring():
        clock.now += 1
        raise KeyError
    assert not budget.affordable()


def test_a_new_start_forgets(clock):
    budget = Overhead("Trace", 0.5)
    with budget.measuring():
        clock.now += 10
    budget.start()
    assert budget.affordable()


@pytest.mark.parametrize("limit", [0.0, -0.1, float("nan")])
def test_a_limit_that_is_not_positive_raises(limit):
    with pytest.raises(ValueError, match="max_overhead = "):
        Overhead("Trace", limit)


class Slow(MeasureCallback):
    """Takes a second by the test's clock, and every training step an eighth."""

    headline = ("slow", "slow")

    def __init__(self, clock, **options):
        super().__init__(**options)
        self.clock = clock
        self.measured = []

    def on_train_batch_end(self, *args):
        self.clock.now += 0.125
        super().on_train_batch_end(*args)

    def measure(self, trainer, subject):
        self.clock.now += 1
        self.measured.append(trainer.global_step)
        return [Measurement("slow", "", "", 0.0)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # After the first one training must take as long as it did: eight steps each. The last is taken in any case.
        ({"every_n_steps": 2, "max_overhead": 1.0}, [0, 8, 16, 24]),
        ({"every_n_epochs": 1, "max_overhead": 1.0}, [0, 8, 16, 24]),
        ({"every_n_epochs": 3}, [0, 12, 24]),
    ],
    ids=["steps", "epochs", "no-limit"],
)
def test_the_interval_grows_and_first_and_last_are_taken(tmp_path, clock, capsys, options, expected):
    callback = Slow(clock, **options)
    trainer = pl.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(
        Classifier(MLP([784, 2, 10]), LogisticLoss()), datamodule=MNIST(source="sample", subset=40, batch_size=10)
    )
    assert callback.measured == expected


def test_it_is_said_once(clock, caplog):
    budget = Overhead("Trace", 0.1)
    budget.start()
    with caplog.at_level("INFO"):
        with budget.measuring():
            clock.now += 3
        assert not budget.affordable()
        assert not budget.affordable()
    (record,) = caplog.records
    assert "Trace has taken 3 s of" in record.message
    assert "max_overhead = 0.1" in record.message
