"""What a sweep keeps on disk: jobs, attempts, locks."""

import fcntl
from pathlib import Path

import pytest

from lnsgd.sweep.attempts import Attempts
from lnsgd.sweep.folder import JobSpec, SweepFolder, config_hash
from tests.sweep.small_sweeps import stands_at


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "out")


def spec(name: str, **other) -> JobSpec:
    return JobSpec(name, [("c", {"a.b": [1, None], "ü": "ü"})], {}, ["--x=1"], replicated=True, reason="", **other)


def test_jobs_come_back_and_are_listed(folder):
    for name in ("b", "a"):
        folder.write_job(spec(name))
        assert folder.read_job(name) == spec(name)
    (folder.path / "jobs" / ".c.json.17.part").touch()  # somebody was killed while he wrote it
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


def test_only_attempts_that_get_the_run_no_further_count_against_the_retries(folder):
    """A machine dies under a job, again and again."""
    assert not folder.is_given_up("a", 0)
    for step in (0, 10, 20, 30):
        if step:
            stands_at(folder, "a", step)
        assert not folder.is_given_up("a", 0)
        folder.count_attempt("a")
    assert folder.read_attempts("a") == Attempts([0, 10, 20, 30])
    assert folder.is_given_up("a", 0)
    assert not folder.is_given_up("a", 1)
    folder.count_attempt("a")
    assert folder.is_given_up("a", 1)
    stands_at(folder, "a", 31)
    assert not folder.is_given_up("a", 0)


def test_a_checkpoint_that_cannot_be_read_gets_a_run_nowhere(folder):
    stands_at(folder, "a", 10)
    folder.count_attempt("a")
    folder.run("a").last_checkpoint.write_bytes(b"damaged")
    assert not folder.is_given_up("a", 0)
    folder.count_attempt("a")
    assert folder.is_given_up("a", 0)


def test_what_is_forgotten_is_gone_but_for_its_run_and_its_log(folder):
    gone = [folder.piece("a"), folder.trajectories("a"), folder.attempts("a"), folder.progress("a")]
    stays = [folder.run("a").config, folder.log("a"), folder.job("a"), folder.piece("b")]
    for path in (*gone, *stays):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert folder.forget("a", lambda job: True)
    assert folder.forget("a", lambda job: True)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stays)


def test_the_piece_is_forgotten_last(folder, monkeypatch):
    """Killed on the way, the job still counts as one that has failed, and can be forgotten again."""
    removed: list[Path] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: removed.append(path))
    folder.forget("a", lambda job: True)
    assert removed[-1] == folder.piece("a")
    assert folder.attempts("a") in removed


def test_nothing_is_forgotten_of_a_job_that_somebody_runs_or_that_has_not_failed_any_more(folder):
    piece, asked = folder.piece("a"), []
    piece.parent.mkdir(parents=True)
    piece.touch()
    with folder.running("a"):
        assert not folder.forget("a", lambda job: asked.append(job) or True)
    assert asked == []  # who runs it may be about to write its piece
    assert not folder.forget("a", lambda job: folder.is_running(job) and asked.append(job))
    assert asked == ["a"]  # nobody could begin to run it then
    assert piece.exists()


def test_a_job_is_locked_by_one(folder):
    assert not folder.is_running("a")
    with folder.running("a") as mine:
        assert mine
        assert folder.is_running("a")
        assert not folder.is_running("b")
        with folder.running("a") as too:
            assert not too
        assert folder.is_running("a")
    assert not folder.is_running("a")


def test_whoever_can_only_read_sees_what_runs(folder, monkeypatch):
    """A colleague's sweep."""
    modes, opened = [], Path.open
    with folder.running("a"):
        monkeypatch.setattr(Path, "open", lambda path, mode="r": modes.append(mode) or opened(path, mode))
        assert folder.is_running("a")
    assert modes == ["r"]


def test_several_work_in_a_folder_and_others_see_it(folder):
    assert not folder.others_at_work()
    with folder.working():
        assert folder.others_at_work()
        with folder.working():
            pass
        assert folder.others_at_work()
    assert not folder.others_at_work()


def test_other_errors_of_a_lock_are_raised(folder, monkeypatch):
    def fails(*_: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="input/output"), folder.running("a"):
        pass


def test_configs_are_known_by_what_they_say(folder, tmp_path):
    config = tmp_path / "base.yaml"
    assert config_hash(config) == ""
    config.write_text("a: 1\n")
    job = JobSpec("a", [], {str(config): config_hash(config)}, [], replicated=False, reason="")
    job.check_configs()
    config.write_text("a: 2\n")
    with pytest.raises(ValueError, match=r"base.yaml has changed since the sweep was planned; .* --retry-failed"):
        job.check_configs()
