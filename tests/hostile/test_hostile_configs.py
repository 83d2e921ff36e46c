"""Untrusted configs and sweeps: only plain values of a limited size, and no class of an untrusted package."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from lnsgd.cli import main
from lnsgd.runs.folder import RunFolder
from lnsgd.sweep.grid import read_sweep
from lnsgd.training.cli import check_config_files
from lnsgd.training.run_config import read_run_config
from lnsgd.untrusted.class_paths import ALLOWED
from lnsgd.untrusted.texts import load_json, load_yaml
from tests.hostile.guarded import guarded
from tests.small_config import mlp, small_config

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefghi", "bcdefghij")
)

TEXTS: dict[str, tuple[bytes, str]] = {
    "laughs": (LAUGHS.encode(), "aliases expanded"),
    "merged-laughs": (
        b"m0: &m0 {k: v}\n"
        + b"".join(b"m%d: &m%d {<<: [%s]}\n" % (i + 1, i + 1, b"*m%d, " % i * 99) for i in range(3)),
        "aliases expanded",
    ),
    "in-itself": (b"a: &a [*a]\n", "contains itself"),
    "python-object": (b"a: !!python/object/apply:os.system ['touch ran']\n", "could not determine a constructor"),
    "python-name": (b"a: !!python/name:os.system\n", "could not determine a constructor"),
    "python-module": (b"!!python/module:os\n", "could not determine a constructor"),
    "own-tag": (b"a: !evil 1\n", "could not determine a constructor"),
    "twice": (b"model: 1\nmodel: 2\n", "'model' twice"),
    "twice-within": (b"a: {b: 1, 'b': 2}\n", "'b' twice"),
    "integer": (b"a: " + b"9" * 10_000 + b"\n", "limit"),
    "deep-list": (b"[" * 100_000, "nested deeper"),
    "deep-map": (b"{a: " * 100_000, "nested deeper"),
    "deep-block": (b"".join(b" " * i + b"- \n" for i in range(300)) + b"x", "deeper"),
    "zero": (b"a: \x00\n", "special characters"),
    "utf-16": ("a: 1\n".encode("utf-16"), "UTF-8"),
    "latin-1": ("a: é\n".encode("latin-1"), "UTF-8"),
    "date": (b"a: 2001-99-99\n", "month"),
    "unhashable": (b"{[1]: 2}\n", "unhashable"),
    "two-documents": (b"a: 1\n---\nb: 2\n", "single document"),
    "large": (b"#" * (3 << 20), "at most"),
    "not-yaml": (b"a: [\n", "expected"),
}

# Accepted by PyYAML.
_HARMLESS_TO_PYYAML = ("twice", "twice-within", "large", "merged-laughs", "laughs", "in-itself")


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_yaml_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, reason = TEXTS[name]
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    run = RunFolder(tmp_path)
    run.config.write_bytes(content)
    for read in (
        lambda: load_yaml(path),
        lambda: check_config_files(["--config", str(path)]),
        lambda: read_sweep(path),
        lambda: read_run_config(run),
    ):
        with pytest.raises(ValueError) as raised, guarded():
            read()
        (line,) = str(raised.value).splitlines()
        assert reason in line
    assert {file.name for file in tmp_path.iterdir()} == {"x.yaml", "config.yaml"}


def test_command_reports_a_hostile_config_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_bytes(LAUGHS.encode())
    for args in (["fit", "--config", "x.yaml"], ["sweep", "x.yaml"], ["sweep", "x.yaml", "--dry-run"]):
        with pytest.raises(SystemExit) as ended:
            main(args)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "x.yaml" in line
    assert [file.name for file in tmp_path.iterdir()] == ["x.yaml"]


def test_ordinary_aliases_and_merges_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {lr: 0.1}\nb: *a\nc: {<<: *a, p: 1}\n")
    assert load_yaml(tmp_path / "x.yaml") == {"a": {"lr": 0.1}, "b": {"lr": 0.1}, "c": {"lr": 0.1, "p": 1}}


def test_every_shipped_config_is_read_as_by_pyyaml():
    paths = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    assert len(paths) > 20
    for path in paths:
        assert load_yaml(path) == yaml.safe_load(path.read_text())


JSONS = {"deep": "[" * 200_000, "integer": "9" * 10_000, "cut": '{"a": ', "latin-1": "é"}


@pytest.mark.parametrize("content", JSONS.values(), ids=JSONS)
def test_hostile_json_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError), guarded():
        load_json(tmp_path / "x.json")


HUGE_SWEEPS = {
    "seeds": ("seeds: 1000000000000", "at most 10,000"),
    "cells": ("grid:\n" + "".join(f"  o{i}: [{', '.join(map(str, range(100)))}]\n" for i in range(9)), "cells"),
}


@pytest.mark.parametrize(("content", "message"), HUGE_SWEEPS.values(), ids=HUGE_SWEEPS)
def test_sweep_of_absurd_size_is_refused(tmp_path, content, message):
    (tmp_path / "base.yaml").write_text("a: 1\n")
    (tmp_path / "x.yaml").write_text(f"base: base.yaml\n{content}\n")
    with pytest.raises(ValueError, match=message), guarded():
        read_sweep(tmp_path / "x.yaml")


CONFIG = small_config(model={"net": mlp(784, 6, 10)}, data={"subset": 50}, seed_everything=0)

# Importing this module leaves a mark.
MODULE = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nfrom lnsgd.models import MLP as Net\n"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Return a function that writes a run whose config names an importable module, and the mark of its import."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "stranger_module.py").write_text(MODULE)
    (home / "stranger.yaml").write_text("class_path: stranger_module.Net\ninit_args: {widths: [784, 6, 10]}\n")
    monkeypatch.syspath_prepend(home)
    monkeypatch.chdir(home)
    monkeypatch.delitem(sys.modules, "stranger_module", raising=False)
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    torch.save({"state_dict": {}}, run.last_checkpoint)

    def write(path: tuple[str, ...], value: object) -> RunFolder:
        config = yaml.safe_load(yaml.safe_dump(CONFIG))
        within = config
        for name in path[:-1]:
            within = within[name]
        within[path[-1]] = value
        run.config.write_text(yaml.safe_dump(config))
        return run

    yield write, home / "ran"
    sys.modules.pop("stranger_module", None)


NET, LOSS, OPTIMIZER = (("model", "init_args", name) for name in ("net", "loss", "optimizer"))
NAMED = {
    "class-path": (NET, {"class_path": "stranger_module.Net", "init_args": {"widths": [784, 6, 10]}}, "--trust"),
    "text": (NET, "stranger_module.Net", "--trust stranger_module"),
    "quoted": (NET, "'stranger_module.Net'", "--trust"),
    "quoted-twice": (NET, "\"'stranger_module.Net'\"", "--trust"),
    "escaped": (NET, '"\\x73tranger_module.Net"', "--trust"),
    "spaced": (NET, "  stranger_module.Net  ", "--trust"),
    "tagged": (NET, "!!str stranger_module.Net # a name", "--trust"),
    "yaml-in-text": (NET, "{class_path: stranger_module.Net}", "write the value itself"),
    "twice-in-text": (NET, "{a: 1, a: 2, class_path: stranger_module.Net}", "write the value itself"),
    "file": (NET, "stranger.yaml", "name of a file"),
    "whole-model": (("model",), "stranger.yaml", "name of a file"),
    "optimizer": (OPTIMIZER, "stranger_module.Net", "--trust"),
    "data": (("data",), {"class_path": "stranger_module.Net"}, "--trust"),
    "key": (("data", "init_args"), {"stranger_module.Net": 1}, "--trust"),
    "function": (OPTIMIZER, {"class_path": "os.system"}, "os"),
    "run": (OPTIMIZER, "subprocess.run", "subprocess"),
    "through-torch": (OPTIMIZER, "torch.os.system", "torch"),
    "through-lnsgd": (OPTIMIZER, "lnsgd.runs.checkpoints.os.system", "expected"),
    "class-through-lnsgd": (NET, "lnsgd.runs.checkpoints.Path", "not a class"),
    "torch-load": (OPTIMIZER, "torch.load", "torch"),
    "hub": (NET, {"class_path": "torch.hub.load"}, "torch"),
    "size": (NET, {"class_path": "lnsgd.models.MLP", "init_args": {"widths": [784, 10**12, 10]}}, "config.yaml"),
}


@pytest.mark.parametrize("name", NAMED)
def test_untrusted_config_imports_no_untrusted_module(stranger, name, capsys):
    write, ran = stranger
    path, value, message = NAMED[name]
    run = write(path, value)
    with pytest.raises(SystemExit) as ended:
        main(["analyze", str(run.path)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(run.config) in line
    assert message in line
    assert not ran.exists()
    assert "stranger_module" not in sys.modules


def test_trusted_package_is_imported(stranger):
    write, ran = stranger
    run = write(NET, {"class_path": "stranger_module.Net", "init_args": {"widths": [784, 6, 10]}})
    assert read_run_config(run, ["stranger_module"]).module.net.widths == [784, 6, 10]
    assert ran.exists()


def test_config_of_lnsgd_is_read(stranger):
    write, _ = stranger
    made = read_run_config(write(("seed_everything",), 3))
    assert type(made.module).__name__ == "Classifier"
    assert type(made.data).__name__ == "MNIST"


def test_shipped_configs_need_no_trust():
    for path in sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")):
        for node in _scalars(yaml.compose(path.read_text())):
            if node.count(".") and node.partition(".")[0] in ("lnsgd", "torch", "pytorch_lightning"):
                assert node.startswith(ALLOWED), (path, node)


def _scalars(node):
    if isinstance(node, yaml.ScalarNode):
        return [node.value]
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    return [text for part in parts for text in _scalars(part)]


FUNCTIONS = ["os.system", "subprocess.run", "builtins.eval", "subprocess.Popen", "webbrowser.open"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("option", ["model", "data", "model.optimizer", "model.loss", "trainer.callbacks"])
def test_user_options_that_are_not_classes_are_refused(tmp_path, monkeypatch, capsys, option, function):
    """Users may name any class of the right kind. A function, or a class of another kind, is never called."""
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "mnist.yaml"
    for name in (f"--{option}", f"--{option}.class_path"):
        if name == "--trainer.callbacks.class_path":
            continue
        with pytest.raises(SystemExit) as ended, guarded():
            main(["fit", "--config", str(config), name, function])
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("lnsgd: error: ")
    assert not list(tmp_path.iterdir())
