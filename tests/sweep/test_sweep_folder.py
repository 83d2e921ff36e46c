"""The folder of a sweep: jobs, attempts, locks."""

import fcntl
from pathlib import Path

import pytest

from lnsgd.records.jobs import Attempts, JobSpec, config_hash
from lnsgd.sweep.folder import SweepFolder
from tests.sweep.small_sweeps import save_checkpoint_at


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "out")


def spec(name: str, **other) -> JobSpec:
    return JobSpec(name, [("c", {"a.b": [1, None], "ü": "ü"})], {}, ["--x=1"], replicated=True, reason="", **other)


def test_recorded_jobs_are_read_and_listed(folder):
    for name in ("b", "a"):
        folder.write_job(spec(name))
        assert folder.read_job(name) == spec(name)
    (folder.path / "jobs" / ".c.json.17.part").touch()  # its writer was killed
    assert folder.planned_jobs() == ["a", "b"]


def test_attempts_are_counted_on_disk(folder):
    assert not folder.begun("a")
    assert folder.count_attempt("a").begun == 1
    folder.note_error("a", "no memory")
    folder.count_attempt("a")
    folder.take_back_attempt("a")
    assert SweepFolder(folder.path).read_attempts("a") == Attempts([0], ["no memory"])
    assert folder.begun("a")
    assert folder.read_attempts("b") == Attempts([], [])


def test_only_attempts_without_progress_count_against_retries(folder):
    """The machine of a job fails again and again."""
    assert not folder.is_given_up("a", 0)
    for step in (0, 10, 20, 30):
        if step:
            save_checkpoint_at(folder, "a", step)
        assert not folder.is_given_up("a", 0)
        folder.count_attempt("a")
    assert folder.read_attempts("a") == Attempts([0, 10, 20, 30])
    assert folder.is_given_up("a", 0)
    assert not folder.is_given_up("a", 1)
    folder.count_attempt("a")
    assert folder.is_given_up("a", 1)
    save_checkpoint_at(folder, "a", 31)
    assert not folder.is_given_up("a", 0)


def test_damaged_checkpoint_is_not_progress(folder):
    save_checkpoint_at(folder, "a", 10)
    folder.count_attempt("a")
    folder.run("a").last_checkpoint.write_bytes(b"damaged")
    assert not folder.is_given_up("a", 0)
    folder.count_attempt("a")
    assert folder.is_given_up("a", 0)


def test_forgotten_job_keeps_its_run_and_log(folder):
    gone = [folder.result("a"), folder.trajectories("a"), folder.attempts("a"), folder.progress("a")]
    stays = [folder.run("a").config, folder.log("a"), folder.job("a"), folder.result("b")]
    for path in (*gone, *stays):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert folder.forget("a", lambda job: True)
    assert folder.forget("a", lambda job: True)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stays)


def test_result_is_removed_last(folder, monkeypatch):
    """If the process is killed before that, the job still counts as failed and can be forgotten again."""
    removed: list[Path] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: removed.append(path))
    folder.forget("a", lambda job: True)
    assert removed[-1] == folder.result("a")
    assert folder.attempts("a") in removed


def test_job_that_runs_or_is_not_wanted_is_not_forgotten(folder):
    result, asked = folder.result("a"), []
    result.parent.mkdir(parents=True)
    result.touch()
    with folder.running("a"):
        assert not folder.forget("a", lambda job: asked.append(job) or True)
    assert asked == []  # the process that runs the job may be about to write its result
    assert not folder.forget("a", lambda job: folder.is_running(job) and asked.append(job))
    assert asked == ["a"]  # the job was locked at that time
    assert result.exists()


def test_job_is_locked_once(folder):
    assert not folder.is_running("a")
    with folder.running("a") as locked:
        assert locked
        assert folder.is_running("a")
        assert not folder.is_running("b")
        with folder.running("a") as locked_again:
            assert not locked_again
        assert folder.is_running("a")
    assert not folder.is_running("a")


def test_read_permission_is_enough_to_see_running_jobs(folder, monkeypatch):
    """The sweep may be a colleague's."""
    modes, opened = [], Path.open
    with folder.running("a"):
        monkeypatch.setattr(Path, "open", lambda path, mode="r": modes.append(mode) or opened(path, mode))
        assert folder.is_running("a")
    assert modes == ["r"]


def test_several_sweeps_at_work_are_seen_by_others(folder):
    assert not folder.others_at_work()
    with folder.working():
        assert folder.others_at_work()
        with folder.working():
            pass
        assert folder.others_at_work()
    assert not folder.others_at_work()


def test_other_errors_of_locks_are_raised(folder, monkeypatch):
    def fails(*_: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="input/output"), folder.running("a"):
        pass


def test_changed_config_is_recognized_by_its_content(folder, tmp_path):
    config = tmp_path / "base.yaml"
    assert config_hash(config) == ""
    config.write_text("a: 1\n")
    job = JobSpec("a", [], {str(config): config_hash(config)}, [], replicated=False, reason="")
    job.check_configs()
    config.write_text("a: 2\n")
    with pytest.raises(ValueError, match=r"base.yaml has changed since the sweep was planned; .* --retry-failed"):
        job.check_configs()
