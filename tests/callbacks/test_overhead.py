"""Measuring is kept to a fraction of the training time."""

import time

import pytest
import pytorch_lightning as pl

from lnsgd.callbacks.base import LimitedCallback, overhead
from lnsgd.callbacks.base.overhead import Overhead
from lnsgd.data import MNIST
from lnsgd.losses import LogisticLoss
from lnsgd.measuring import Measurement, PlainContext
from lnsgd.models import MLP
from lnsgd.modules import Classifier


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(overhead, "perf_counter", clock)
    return clock


def test_measuring_is_affordable_after_enough_training(clock):
    budget = Overhead("Trace", 0.05)
    budget.start()
    assert budget.is_affordable()
    with budget.measuring():
        clock.now += 2
    clock.now += 39.9
    assert not budget.is_affordable()
    clock.now += 0.2
    assert budget.is_affordable()
    with budget.measuring():
        clock.now += 2
    assert not budget.is_affordable()


def test_without_a_limit_measuring_is_always_affordable(clock):
    budget = Overhead("Trace", None)
    budget.start()
    with budget.measuring():
        clock.now += 1000
    assert budget.is_affordable()


def test_time_of_a_failed_measurement_is_counted(clock):
    budget = Overhead("Trace", 0.5)
    budget.start()
    with pytest.raises(KeyError), budget.measuring():
        clock.now += 1
        raise KeyError
    assert not budget.is_affordable()


def test_starting_anew_resets_the_clocks(clock):
    budget = Overhead("Trace", 0.5)
    with budget.measuring():
        clock.now += 10
    budget.start()
    assert budget.is_affordable()


@pytest.mark.parametrize("limit", [0.0, -0.1, float("nan")])
def test_limit_that_is_not_positive_raises(limit):
    with pytest.raises(ValueError, match="max_overhead = "):
        Overhead("Trace", limit)


class Slow(LimitedCallback):
    """A measure that takes a second of the test's clock, while each training step takes an eighth."""

    headline = ("slow", "slow")
    default_overhead = 1.0

    def __init__(self, clock, **options):
        super().__init__(**options)
        self.clock = clock
        self.measured = []

    def on_train_batch_end(self, *args):
        self.clock.now += 0.125
        super().on_train_batch_end(*args)

    def measure(self, subject, source, context):
        self.clock.now += 1
        self.measured.append(context.trainer.global_step)
        return [Measurement("slow", "", "", 0.0)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # After the first one training must take as long as it did: eight steps each. The last is taken in any case.
        ({"every_n_steps": 2, "max_overhead": 1.0}, [0, 8, 16, 24]),
        ({"every_n_epochs": 1, "max_overhead": 1.0}, [0, 8, 16, 24]),
        ({"every_n_epochs": 3}, [0, 12, 24]),
        # The default limit holds where no schedule is given; a schedule that is given is kept.
        ({"max_overhead": "auto"}, [0, 8, 16, 24]),
        ({}, [0, 8, 16, 24]),
        ({"every_n_steps": 4}, [0, 4, 8, 12, 16, 20, 24]),
        ({"every_n_epochs": 1}, [0, 4, 8, 12, 16, 20, 24]),
        ({"at_steps": [1, 2, 3]}, [0, 1, 2, 3, 24]),
        ({"max_overhead": None}, [0, 4, 8, 12, 16, 20, 24]),
    ],
    ids=["steps", "epochs", "no-limit", "auto", "default", "kept-steps", "kept-epochs", "kept-list", "no-limit-given"],
)
def test_interval_grows_but_first_and_last_are_measured(tmp_path, clock, options, expected):
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


def test_message_is_logged_once(clock, caplog):
    budget = Overhead("Trace", 0.1)
    budget.start()
    with caplog.at_level("INFO"):
        with budget.measuring():
            clock.now += 3
        assert not budget.is_affordable()
        assert not budget.is_affordable()
    (record,) = caplog.records
    assert "Trace has taken 3 s of" in record.message
    assert "max_overhead = 0.1" in record.message


def test_a_kept_schedule_that_takes_longer_than_training_is_reported_once(clock, caplog):
    budget = Overhead("Trace", None, suggested=0.05)
    with caplog.at_level("INFO"):
        for _ in range(3):
            with budget.measuring():
                clock.now += 20
            clock.now += 1
            assert budget.is_affordable()
    (record,) = caplog.records
    assert "its schedule is kept; give max_overhead, such as 0.05" in record.message


def test_skipped_measurements_are_counted_at_the_end(clock, caplog):
    budget = Overhead("Trace", 0.5)
    with budget.measuring():
        clock.now += 3
    for _ in range(4):  # affordable at the last time
        clock.now += 1.6
        budget.is_affordable()
    with caplog.at_level("INFO"):
        budget.report_skipped()
    assert "Trace: 3 of 4 measurements that were due were skipped" in caplog.text


@pytest.mark.parametrize("kind", ["batches", "fraction"])
def test_a_long_measurement_is_announced_while_it_runs(monkeypatch, kind):
    """The first one too, which the limit cannot prevent; a short one is silent, and so is the next after it."""
    said = []
    monkeypatch.setattr(overhead, "rank_zero_info", said.append)
    monkeypatch.setattr(overhead, "ANNOUNCED_AFTER", 0.05)
    budget, context = Overhead("Trace", 0.01), PlainContext()
    with budget.measuring(7, context):
        if kind == "batches":
            context.loaded.batches_read += 8
        else:
            context.on_progress(0.25)
        deadline = time.monotonic() + 10
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(said) >= 2
    assert all(text.startswith("Trace: measuring the network at step 7 has taken 0.") for text in said)
    assert all(text.endswith(", with 8 batches of data" if kind == "batches" else ", 25% done") for text in said)
    before = list(said)
    with budget.measuring(8, context):
        pass
    assert said == before and context.on_progress is None
