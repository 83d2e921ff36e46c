"""The file of a sweep: how it is read, and which errors are refused in one line."""

from pathlib import Path

import pytest

from lnsgd.sweep.grid import read_sweep


def write(folder: Path, text: str) -> Path:
    (folder / "base.yaml").write_text("# a config\ntrainer: {}\n")
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_axes_are_grid_then_zip_then_seeds(tmp_path):
    sweep = read_sweep(
        write(
            tmp_path,
            """
base: base.yaml
options: {trainer.max_epochs: 3}
grid:
  data.subset: [64, 256]
  model.loss: [CrossEntropy]
zip:
  - model.net.widths: [[784, 5, 10], [784, 9, 10]]
    model.optimizer.lr: [0.1, 0.2]
seeds: 2
""",
        )
    )
    assert (sweep.name, sweep.base) == ("small", (tmp_path / "base.yaml",))
    assert sweep.options == {"trainer.max_epochs": 3}
    assert sweep.axes == (
        ({"data.subset": 64}, {"data.subset": 256}),
        ({"model.loss": "CrossEntropy"},),
        (
            {"model.net.widths": [784, 5, 10], "model.optimizer.lr": 0.1},
            {"model.net.widths": [784, 9, 10], "model.optimizer.lr": 0.2},
        ),
        ({"seed_everything": 0}, {"seed_everything": 1}),
    )
    assert len(sweep) == 8


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    """YAML 1.1, which PyYAML reads, takes 1e-1 for text."""
    sweep = read_sweep(
        write(tmp_path, "base: base.yaml\ngrid: {a: [1e-1, 1E+2, -.5e1, 1.], b: ['1e-1', 1e, e1, 1.2.3]}\n")
    )
    assert [point["a"] for point in sweep.axes[0]] == [0.1, 100.0, -5.0, 1.0]
    assert [point["b"] for point in sweep.axes[1]] == ["1e-1", "1e", "e1", "1.2.3"]


def test_several_bases_and_listed_seeds(tmp_path):
    path = write(tmp_path, "base: [base.yaml, base.yaml]\nseeds: [7, 3]\n")
    sweep = read_sweep(path)
    assert len(sweep.base) == 2
    assert sweep.axes == (({"seed_everything": 7}, {"seed_everything": 3}),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("base: base.yaml\ngird: {}\n", "'gird' is not a key of a sweep", id="unknown-key"),
        pytest.param("grid: {a: [1]}\n", "base is missing", id="no-base"),
        pytest.param("base: other.yaml\n", "other.yaml does not exist", id="absent-base"),
        pytest.param("base: base.yaml\ngrid: {a: []}\n", r"a = \[\]; give a list", id="empty-list"),
        pytest.param("base: base.yaml\ngrid: {a: 3}\n", "a = 3; give a list", id="not-a-list"),
        pytest.param("base: base.yaml\ngrid: [1]\n", r"grid = \[1\]", id="not-a-mapping"),
        pytest.param("base: base.yaml\ngrid: {1: [1]}\n", "give names of options", id="not-a-name"),
        pytest.param("base: base.yaml\ngrid: {a: [1, 2, 1]}\n", "a = 1 is given twice", id="repeated-value"),
        pytest.param("base: base.yaml\nzip: [{a: [1, 2], b: [1]}]\n", "a has 2 values and b 1", id="zip-lengths"),
        pytest.param("base: base.yaml\nzip: {a: [1]}\n", "give a list of mappings", id="zip-not-a-list"),
        pytest.param("base: base.yaml\ngrid: {a: [1]}\nzip: [{a: [2]}]\n", "a is given twice", id="twice"),
        pytest.param("base: base.yaml\noptions: {a: 1}\ngrid: {a: [2]}\n", "a is given twice", id="fixed-and-varied"),
        pytest.param("base: base.yaml\nseeds: 0\n", "seeds = 0", id="no-seeds"),
        pytest.param("base: base.yaml\nseeds: true\n", "seeds = True", id="true-seeds"),
        pytest.param("base: base.yaml\nseeds: [-1]\n", r"seeds = \[-1\]", id="negative-seed"),
        pytest.param("base: base.yaml\nseeds: [1, 1]\n", "seed_everything = 1 is given twice", id="repeated-seed"),
        pytest.param("base: base.yaml\nseeds: 2\ngrid: {seed_everything: [1]}\n", "given twice", id="seeds-twice"),
        pytest.param("[1, 2]\n", "is not a sweep", id="list"),
        pytest.param("a: [\n", "is not YAML", id="broken"),
    ],
)
def test_invalid_sweep_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_sweep(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "small.yaml" in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="this sweep does not exist"):
        read_sweep(tmp_path / "none.yaml")
