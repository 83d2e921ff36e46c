"""``lnsgd reproduce``: what it prints and leaves, and what it refuses."""

import json
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.figures import command
from lnsgd.figures.catalogue import FIGURES
from lnsgd.figures.figure import Figure
from tests.figures import tiny


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with two more figures in the catalogue, on a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    figures: dict[str, Figure] = {"tiny": tiny.figure(tmp_path), "computed": tiny.computed_figure()}
    for name, figure in figures.items():
        monkeypatch.setitem(command.FIGURES, name, figure)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_prints_and_leaves_table_claims_picture_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "tiny", "--out", "out"])
    printed, out = capsys.readouterr().out, tmp_path / "out"
    for expected in ("table of 2 arms", "Paper vs measured", "some fire", "Figure: out/tiny.png", "out/claims.json"):
        assert expected in printed
    holds, fails = json.loads((out / "claims.json").read_text())
    assert (holds["claim"], holds["n"], holds["holds"]) == ("some fire", 2, True)
    assert (fails["claim"], fails["high"], fails["holds"]) == ("none fires", 0.0, False)
    assert (out / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "| none fires | Fig. 0 | 0 |  … 0 |" in (out / "summary.md").read_text()


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
    assert json.loads((out / "claims.json").read_text())[0]["n"] == seeds
    assert f"--scale {scale} --seeds {seeds}`" in (out / "summary.md").read_text()


def test_list_prints_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "list"])
    printed = capsys.readouterr().out
    assert {"tiny", "computed", "cornacchia-norm-step"} <= set(FIGURES)
    for figure in FIGURES.values():
        row = next(line for line in printed.splitlines() if f" {figure.name} " in line)
        assert all(f"{name} ({scale.seeds})" in row for name, scale in figure.scales.items())
        assert figure.title.split()[0] in row


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
