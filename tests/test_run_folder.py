"""The names of what a run leaves."""

from lnsgd.run_folder import RunFolder


def test_run_of_a_checkpoint(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    assert RunFolder.of_checkpoint(run.last_checkpoint) is None  # no record of a run
    run.config.write_text("")
    assert RunFolder.of_checkpoint(run.last_checkpoint) == run
    monkeypatch.chdir(run.checkpoints)
    assert RunFolder.of_checkpoint(RunFolder(run.path).last_checkpoint.relative_to(run.checkpoints)) == run
    assert RunFolder.of_checkpoint(tmp_path / "elsewhere" / "last.ckpt") is None
