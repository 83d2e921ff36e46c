"""Resuming with other options: what is refused, what is allowed, and what is recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lnsgd.analysis import analyze
from lnsgd.cli import main
from lnsgd.records.changes import Change, append_change, changed_options, config_in_effect, read_changes
from lnsgd.report.run_section import read_run
from lnsgd.runs.folder import RunFolder
from lnsgd.training.changes import is_free
from tests.small_config import instance, small_config, uniform_noise, write_config

SMALL = small_config(trainer={"max_epochs": 1, "limit_val_batches": 0})


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of one epoch, to be copied."""
    folder = tmp_path_factory.mktemp("run")
    main(["fit", "--config", str(write_config(folder / "small.yaml", SMALL)), "--run_dir", str(folder / "run")])
    return RunFolder(folder / "run")


@pytest.fixture
def run(one_epoch: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(one_epoch.path, "run")
    shutil.copy(one_epoch.path.parent / "small.yaml", "small.yaml")
    return RunFolder(Path("run"))


def read_files(run: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


MORE = ["--trainer.max_epochs", "2"]
WAYS = {
    "resume": ["--resume", "run"],
    "last": ["--config", "small.yaml", "--run_dir", "run", "--ckpt_path", "last"],
    "auto": ["--config", "small.yaml", "--run_dir", "run", "--ckpt_path", "auto"],
}
REFUSED = {
    "noise": ("last", ["--model.label_noise.p", "9e-1"], "model.label_noise.p (0.2 in the run, 0.9 now)"),
    "class": ("auto", ["--model.label_noise", "LabelSmoothing", "--model.label_noise.p", "0.2"], "LabelSmoothing"),
    "data": ("resume", ["--data.subset", "60"], "data.subset (100 in the run, 60 now)"),
    "seed": ("last", ["--seed_everything", "1"], "seed_everything (0 in the run, 1 now)"),
    "learning rate": ("auto", ["--model.optimizer.lr", "0.2"], "model.optimizer.lr (0.1 in the run, 0.2 now)"),
    "precision": ("resume", ["--trainer.precision", "64-true"], "trainer.precision (none in the run, 64-true now)"),
    "accumulation": ("resume", ["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches (1 in the run"),
    "replicas": ("resume", ["--replicas.seeds", "2"], "replicas"),
    "averaging": (
        "last",
        ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=1"],
        "Averag",
    ),
}


@pytest.mark.parametrize(("way", "options", "named"), REFUSED.values(), ids=REFUSED)
def test_other_experiments_are_refused_and_named(run, capsys, way, options, named):
    before = read_files(run)
    with pytest.raises(SystemExit) as ended:
        main(["fit", *WAYS[way], *MORE, *options])
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert line.startswith("lnsgd: error: run was trained with other options: ")
    assert named in line
    assert "--allow_changes" in line
    assert read_files(run) == before


def test_finished_run_is_refused_too(run, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "run", "--data.subset", "60"])
    assert "data.subset (100 in the run, 60 now)" in capsys.readouterr().err


def test_longer_training_elsewhere_is_allowed_and_recorded(run, capsys):
    config = run.config.read_bytes()
    main(["fit", "--resume", "run", *MORE, "--data.eval_batch_size", "50", "--trainer.callbacks+=WeightNorms"])
    assert run.config.read_bytes() == config
    (change,) = read_changes(run)
    assert change.step == 5
    assert {one.option for one in change.changes} == {
        *("trainer.max_epochs", "data.init_args.eval_batch_size", "trainer.callbacks")
    }
    main(["fit", "--resume", "run"])  # alone: with the options that hold now
    assert capsys.readouterr().out.endswith("The run in run has reached its end already\n")
    assert len(read_changes(run)) == 1


def test_allowed_changes_are_added_to_the_record_which_readers_show(run):
    config = run.config.read_bytes()
    main(["fit", "--resume", "run", *MORE, "--model.label_noise.p", "0.9", "--allow_changes"])
    main(["fit", "--resume", "run", "--trainer.max_epochs=3", "--model.loss=CrossEntropy", "--allow_changes"])
    assert run.config.read_bytes() == config
    noise, loss = read_changes(run)
    path = "model.init_args.label_noise.init_args.p"
    assert [(one.before, one.after) for one in noise.changes if one.option == path] == [(0.2, 0.9)]
    assert (noise.step, loss.step) == (5, 10)
    assert config_in_effect(run)["model"]["init_args"]["label_noise"] == uniform_noise(0.9)
    assert json.loads(run.finished.read_text())["steps"] == 15
    notes = read_run(run.path).notes
    assert len(notes) == 2
    assert notes[0].startswith("Options changed from step 5 on: ")
    assert "model.label_noise.p (0.2 in the run, 0.9 now)" in notes[0]
    table = analyze([run.path], batch_size=50, measures=[])
    assert set(table.columns) >= {"step", "value"}


def test_run_from_the_checkpoint_of_another_says_so(run):
    start = ["--config", "small.yaml", "--ckpt_path", str(run.last_checkpoint), "--run_dir", "other"]
    main(["fit", *start, *MORE, "--data.subset", "60"])
    other = RunFolder(Path("other"))
    assert yaml.safe_load(other.config.read_text())["data"]["init_args"]["subset"] == 60
    (start,) = read_changes(other)
    assert start.started_from == str(run.last_checkpoint)
    assert "data.init_args.subset" in {one.option for one in start.changes}
    assert not run.changes.exists()


def test_going_back_sets_later_checkpoints_aside(run, capsys):
    shutil.copy(run.last_checkpoint, run.checkpoints / "first.ckpt")
    main(["fit", "--resume", "run", *MORE])
    main(["fit", "--resume", "run", "--ckpt_path", "run/checkpoints/first.ckpt"])
    assert (
        "goes back to step 5; a later checkpoint is now run/checkpoints/last.ckpt.set-aside" in capsys.readouterr().err
    )
    assert run.last_checkpoint.exists()


RESUME_OF = {
    "nothing": (["--resume", "none"], ("none", "not the folder of a run")),
    "without a folder": (["--resume"], ("--resume needs the folder",)),
    "two folders": (["--resume", "run", "--run_dir", "other"], ("leave out --run_dir",)),
}


@pytest.mark.parametrize(("options", "expected"), RESUME_OF.values(), ids=RESUME_OF)
def test_what_cannot_be_resumed_is_refused(run, capsys, options, expected):
    with pytest.raises(SystemExit):
        main(["fit", *options])
    line = capsys.readouterr().err.splitlines()[-1]
    assert all(part in line for part in expected)


def test_dry_run_makes_no_folder(run, capsys):
    before = sorted(Path().rglob("*"))
    main(["fit", "--config", "small.yaml", "--trainer.fast_dev_run", "true"])
    assert sorted(Path().rglob("*")) == before


def test_folder_in_use_is_refused(run, capsys, monkeypatch):
    monkeypatch.setattr("lnsgd.runs.resume.claim", lambda folder: (_ for _ in ()).throw(ValueError("run is written")))
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "run", *MORE])
    assert "run is written" in capsys.readouterr().err


CALLBACKS = [instance("A", x=1), instance("B")]


def with_callbacks(*callbacks: Any, **more: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": list(callbacks)}, **more}


def test_difference_of_configs():
    old, new = (
        with_callbacks(*CALLBACKS, a=2, b=None, c={}, e=[1, 2]),
        with_callbacks(*CALLBACKS[::-1], a=2.0, e=(1, 2)),
    )
    assert changed_options(old, new) == []
    assert changed_options(old, {**old, "b": 1, "e": [1, 3]}) == [Change("b", None, 1), Change("e", [1, 2], [1, 3])]
    changed = changed_options(old, with_callbacks(CALLBACKS[1], instance("A", x=2), a=2, e=[1, 2]))
    added, removed = {"class_path": "A", "init_args.x": 2}, {"class_path": "A", "init_args.x": 1}
    assert changed == [Change("trainer.callbacks", [removed], [added])]


@pytest.mark.parametrize(
    ("option", "free"),
    [
        *(("trainer.max_time", True), ("trainer.logger.0.class_path", True), ("trainer.max_epochs_more", False)),
        *(("model.init_args.net.init_args.widths", False), ("trainer.limit_train_batches", False)),
    ],
)
def test_which_options_may_differ(option, free):
    assert is_free(Change(option, 1, 2)) is free


DAMAGED = ["[]", "{}", '{"version": 2, "changes": []}', '{"version": 1, "changes": [{"step": 1}]}', "nonsense"]
DAMAGED += ['{"version": 1, "changes": [{"step": "1", "time": "", "lnsgd": "", "changes": [], "config": {}}]}']


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_record_is_refused(tmp_path, content):
    run = RunFolder(tmp_path)
    run.changes.write_text(content)
    with pytest.raises(ValueError, match=r"changes.json cannot be read"):
        read_changes(run)


def test_record_is_read_as_it_was_written(tmp_path):
    run = RunFolder(tmp_path)
    append_change(run, 3, [Change("a", 1, None)], {"b": 2}, "x.ckpt")
    append_change(run, 4, [], {"b": 3})
    first, second = read_changes(run)
    assert (first.step, first.changes, first.config, first.started_from) == (
        3,
        (Change("a", 1, None),),
        {"b": 2},
        "x.ckpt",
    )
    assert (second.step, second.changes, second.started_from) == (4, (), None)
    assert config_in_effect(run) == {"b": 3}
