"""State shared by the measuring callbacks of one Trainer belongs to that Trainer and is never copied."""

import copy
import pickle

import pyarrow.parquet as pq
import pytest

from lnsgd.callbacks import ActiveNeurons, DeadNeurons, DistanceFromInit
from tests.callbacks.foreign_project import loader, project, trainer_in


def fitted(folder, *callbacks, **options):
    trainer = trainer_in(folder, list(callbacks), **options)
    trainer.fit(project(), loader(), loader(seed=2))
    return trainer


def test_callbacks_of_one_trainer_share_one_state_kept_by_the_first(tmp_path):
    first, second = ActiveNeurons(), DeadNeurons()
    trainer = fitted(tmp_path, first, second)
    assert first.shared(trainer) is second.shared(trainer)
    assert second._shared is None


def test_another_trainer_starts_anew(tmp_path):
    callback = ActiveNeurons()
    before = callback.shared(fitted(tmp_path / "first", callback))
    trainer = fitted(tmp_path / "second", callback)
    assert callback.shared(trainer) is not before
    steps = pq.read_table(tmp_path / "second" / "measures.parquet")["step"].to_pylist()
    assert sorted(set(steps)) == [0, trainer.global_step]


def test_a_second_fit_of_a_trainer_continues_its_table(tmp_path):
    callback = DistanceFromInit()
    trainer = trainer_in(tmp_path, [callback])
    module = project()
    trainer.fit(module, loader(), loader(seed=2))
    middle = trainer.global_step
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader(), loader(seed=2))
    steps = pq.read_table(tmp_path / "measures.parquet")["step"].to_pylist()
    assert sorted(set(steps)) == [0, middle, 2 * middle]


def test_fresh_callbacks_of_a_second_fit_continue_the_table(tmp_path):
    """As a module gives them whose ``configure_callbacks`` makes new ones at every fit."""
    trainer = fitted(tmp_path, DistanceFromInit())
    middle = trainer.global_step
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, DistanceFromInit)] + [ActiveNeurons()]
    trainer.fit_loop.max_epochs = 2
    trainer.fit(project(), loader(), loader(seed=2))
    steps = pq.read_table(tmp_path / "measures.parquet")["step"].to_pylist()
    assert sorted(set(steps)) == [0, middle, 2 * middle]


def test_a_trainer_that_another_one_interrupts_continues_its_table(tmp_path):
    callback, module = ActiveNeurons(), project()
    first = trainer_in(tmp_path / "first", [callback])
    first.fit(module, loader(), loader(seed=2))
    middle = first.global_step
    fitted(tmp_path / "second", callback)
    first.fit_loop.max_epochs = 2
    first.fit(module, loader(), loader(seed=2))
    steps = pq.read_table(tmp_path / "first" / "measures.parquet")["step"].to_pylist()
    assert sorted(set(steps)) == [0, middle, 2 * middle]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_has_the_settings_but_not_the_state(tmp_path, copied):
    callback = ActiveNeurons(["val"])
    fitted(tmp_path, callback)
    assert callback._shared is not None
    other = copied(callback)
    assert other._shared is None
    assert (other.splits, other.identity) == (["val"], callback.identity)
