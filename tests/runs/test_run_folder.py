"""The files in the folder of a run."""

from lnsgd.runs.folder import RunFolder


def test_run_of_a_checkpoint_is_found(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    assert RunFolder.of_checkpoint(run.last_checkpoint) is None  # without the record of a run
    run.config.write_text("")
    assert RunFolder.of_checkpoint(run.last_checkpoint) == run
    monkeypatch.chdir(run.checkpoints)
    assert RunFolder.of_checkpoint(RunFolder(run.path).last_checkpoint.relative_to(run.checkpoints)) == run
    assert RunFolder.of_checkpoint(tmp_path / "elsewhere" / "last.ckpt") is None
