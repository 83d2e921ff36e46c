"""The command ``lnsgd reproduce``: its output, its files, and the errors for bad input."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.figures.framework import command
from lnsgd.figures.framework.figure import Figure
from lnsgd.figures.framework.kept import kept_counts
from lnsgd.records.claims import in_words
from tests.figures import tiny
from tests.figures.listed import list_figures


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of the test, with two more figures in the catalogue, on a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    figures: dict[str, Figure] = {"tiny": tiny.figure(tmp_path), "computed": tiny.computed_figure()}
    folder = tmp_path.with_name(f"{tmp_path.name}-list")
    folder.mkdir()
    list_figures(monkeypatch, figures, folder)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_prints_the_last_screen_and_leaves_claims_picture_and_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reproduce", "tiny", "--out", "out"])
    printed, out = capsys.readouterr().out, tmp_path / "out"
    for expected in ("paper: 1 of 1 holds; control: 0 of 1 hold, 1 fails", "none fires", "In out:", "tiny.png"):
        assert expected in printed
    holds, fails = json.loads((out / "claims.json").read_text())["claims"]
    assert (holds["claim"], holds["n"], holds["verdict"]) == ("some fire", 2, "holds")
    assert (fails["claim"], fails["high"], fails["verdict"]) == ("none fires", 0.0, "fails")
    assert (out / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "| none fires<br>Fig. 0 | 0 | ≤ 0 |" in (out / "summary.md").read_text()


def test_all_prints_the_full_table_and_every_claim_before_the_last_screen(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "tiny", "--out", "out", "--all"])
    printed = capsys.readouterr().out
    expected = ("table of 2 arms", "holds  some", "  some fire", "  measured ", "1 of 1 holds")
    assert sorted(expected, key=printed.index) == list(expected)


def test_a_second_call_writes_the_same(tmp_path: Path) -> None:
    main(["reproduce", "computed", "--out", "out"])
    left = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    main(["reproduce", "computed", "--out", "out"])
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == left
    assert set(left) == {
        *("settings.json", "claims.json", "summary.md", "computed.png"),
        *("computed/measures.parquet", "computed/finished.json"),
    }


def test_a_computed_figure_has_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "computed"])
    printed = capsys.readouterr().out
    assert "computed 1/1: computed, 2 seeds (computing)" in printed
    assert "100%" in printed


SEEDS = {
    "scale-ci-by-default": ([], "computed-ci", "ci", 2),
    "seeds-of-the-scale": (["--scale", "paper"], "computed-paper", "paper", 4),
    "given": (["--scale", "paper", "--seeds", "1"], "computed-paper", "paper", 1),
}


@pytest.mark.parametrize(("options", "folder", "scale", "seeds"), SEEDS.values(), ids=SEEDS)
def test_scale_seeds_and_folder(options: list[str], folder: str, scale: str, seeds: int) -> None:
    main(["reproduce", "computed", *options])
    out = Path("runs") / "reproduce" / folder
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["scale"], settings["seeds"]) == (scale, seeds)
    assert json.loads((out / "claims.json").read_text())["claims"][0]["n"] == seeds
    assert f"--scale {scale} --seeds {seeds}`" in (out / "summary.md").read_text()


def test_list_prints_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "list"])
    printed = capsys.readouterr().out
    assert {"tiny", "computed", "cornacchia-norm-step"} <= set(command.FIGURES)
    for figure in command.FIGURES.values():
        row = next(line for line in printed.splitlines() if f" {figure.name} " in line)
        assert all(f"{name} ({scale.seeds})" in row for name, scale in figure.scales.items())
        assert figure.title.split()[0] in row
    kept = kept_counts()
    assert f"In all, at scale paper: {in_words(sum(kept.values(), Counter()))}" in " ".join(printed.split())
    assert in_words(kept["cornacchia-neuron"]) in printed
    assert printed.count("not run at scale paper") == len(command.FIGURES.keys() - kept.keys())


REFUSED = {
    "figure": (["tinny"], ("'tinny'", "tiny")),
    "scale": (["tiny", "--scale", "huge"], ("tiny has no scale 'huge'", "ci, paper")),
    "no-seeds": (["tiny", "--seeds", "0"], ("--seeds 0", "at least 1")),
    "negative-seeds": (["tiny", "--seeds", "-2"], ("--seeds -2", "at least 1")),
    "seeds-no-number": (["tiny", "--seeds", "two"], ("--seeds", "'two'")),
    "option": (["tiny", "--sclae", "ci"], ("--sclae",)),
    "nothing": ([], ("figure",)),
}


@pytest.mark.parametrize(("args", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    args: list[str], says: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *args])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lnsgd: error: ")
    assert all(part in line for part in says)
    assert files(tmp_path) == before


def test_a_folder_of_another_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "computed", "--out", "out"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "tiny", "--out", "out"])
    assert ended.value.code == 2
    assert "out holds runs with other settings" in capsys.readouterr().err
