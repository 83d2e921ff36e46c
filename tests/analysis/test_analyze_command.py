"""`lnsgd analyze`: files, tables and pictures; bad input ends in one line, and nothing is written."""

import pickle
import re
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lnsgd.cli import main
from lnsgd.records.analyses import COLUMNS
from lnsgd.runs.folder import RunFolder
from tests.analysis.analyzed_runs import weights

# A small network instead of the network of a run.
SMALL = ["--model", "lnsgd.models.MLP", "--model.widths", "[784,6,10]", "--loss", "LogisticLoss"]
QUICK = [f"--measures.SpectralDensity.{name}" for name in ("top=0", "probes=2", "steps=3", "examples=20")]
IMAGES = ["--data", "MNIST", "--data.source", "sample", "--data.subset=120"]


def test_run_becomes_a_table_and_pictures(run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    main(
        [
            "analyze",
            str(run),
            "--measures",
            "ActiveNeurons,WeightNorms,SpectralDensity",
            "--measures.SpectralDensity.top=0",
        ]
    )
    out = tmp_path / "runs" / "analysis" / "run"
    table = pd.read_parquet(out / "analysis.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert set(table.step) == {0, 10, 20, 30}
    assert len(pd.read_csv(out / "analysis.csv")) == len(table)
    assert len(list(out.glob("spectral_density_*_train.png"))) == 4
    assert (out / "trajectories.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "active_fraction" in said
    assert "±" in said
    assert "4 networks" in said


def test_single_checkpoint_is_drawn_as_bars_by_site(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    main(["analyze", str(checkpoint), "--out", str(tmp_path), "--measures", "ActiveNeurons"])
    assert (tmp_path / "sites.png").stat().st_size > 5_000
    assert not (tmp_path / "trajectories.png").exists()


def test_foreign_weights_with_a_model_named_on_the_command_line(run: Path, tmp_path: Path, capsys) -> None:
    """Weights of a run under other names give the numbers of the run."""
    nested = {f"module.{name}": tensor for name, tensor in load_file(run / "init.safetensors").items()}
    alone = tmp_path / "elsewhere" / "foreign.pth"
    alone.parent.mkdir()
    torch.save({"state_dict": nested, "epoch": 7, "arch": "mlp"}, alone)
    measures = ["--measures", "Performance", "--measures.Performance.splits", "[train]"]
    seeded = [*IMAGES, "--data.seed", "3"]
    main(["analyze", str(alone), *SMALL, *seeded, *measures, "--out", str(tmp_path / "a")])
    assert re.search(r"without their\s+prefix 'module.net.'", capsys.readouterr().out)
    main(["analyze", str(run / "init.safetensors"), *measures, "--out", str(tmp_path / "b")])
    foreign, own = (pd.read_parquet(tmp_path / name / "analysis.parquet") for name in "ab")
    assert foreign.value.tolist() == own.value.tolist()
    assert foreign.epoch.tolist() == [7, 7]


def test_function_can_make_the_model(tmp_path: Path) -> None:
    import torchvision

    save_file(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), tmp_path / "net.safetensors")
    model = ["--model", "torchvision.models.squeezenet1_1", "--model.num_classes", "10"]
    main(
        [
            "analyze",
            str(tmp_path / "net.safetensors"),
            *model,
            *IMAGES,
            "--measures",
            "WeightNorms",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    assert "norm" in set(pd.read_parquet(tmp_path / "out" / "analysis.parquet").measure)


@pytest.mark.parametrize("path", ["lnsgd.callbacks.DeadNeurons", "lnsgd.measuring.DeadNeuronsMeasurer"])
def test_measures_given_as_class_paths(path: str, run: Path, tmp_path: Path) -> None:
    listed = f"[{{class_path: HessianTrace, init_args: {{examples: 20, rtol: 0.5}}}}, {path}]"
    main(["analyze", str(run / "checkpoints" / "last.ckpt"), "--measures", listed, "--out", str(tmp_path)])
    table = pd.read_parquet(tmp_path / "analysis.parquet")
    assert set(table.measure) == {"hessian_trace", "dead_count", "dead_fraction"}


def test_comparison_writes_tables_and_a_picture(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    both = [str(run / "init.safetensors"), str(run)]
    main(["analyze", "--compare", *both, "--measures", "Performance", "--points", "3", "--out", str(out)])
    assert (out / "path.png").stat().st_size > 5_000
    assert pd.read_parquet(out / "path.parquet").t.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert "ever_active_jaccard" in set(pd.read_csv(out / "similarity.csv").measure)
    assert "B − A" in capsys.readouterr().out


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# Configs of runs of another version of lnsgd: a text of this version, and the text of the other one.
OTHER_VERSIONS = {
    "other-class": ("lnsgd.modules.Classifier", "lnsgd.modules.Learner"),
    "other-room": ("lnsgd.models.MLP", "lnsgd.nets.MLP"),
    "other-option": ("        widths:", "        sizes:"),
    "other-data": ("lnsgd.data.MNIST", "lnsgd.data.Digits"),
    "no-data-entry": ("\ndata:", "\ndatamodule:"),
    "no-entries": ("seed_everything", "- seed_everything"),
}


def write_other_version(run: Path, folder: Path, old: str, new: str) -> None:
    """Write a run of another version."""
    folder.mkdir()
    text = (run / "config.yaml").read_text()
    assert old in text
    (folder / "config.yaml").write_text(new if old == "seed_everything" else text.replace(old, new, 1))
    (folder / "init.safetensors").write_bytes((run / "init.safetensors").read_bytes())
    RunFolder(folder).finished.write_text('{"versions": {"lnsgd": "0.0.1"}}')


@pytest.fixture
def files(run: Path, tmp_path_factory) -> dict[str, Path]:
    """Files and folders by name, most of them bad input."""
    folder = tmp_path_factory.mktemp("inputs")
    good = load_file(run / "init.safetensors")
    (folder / "text.pt").write_text("no checkpoint")
    (folder / "text.safetensors").write_text("no checkpoint")
    torch.save({"weights": Bomb(folder / "touched")}, folder / "bomb.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"lr": 0.1}, folder / "settings.pt")
    torch.save(good, folder / "good.pt")
    torch.save({**good, "net.extra.weight": torch.zeros(3)}, folder / "extra.pt")
    torch.save({name: value for name, value in good.items() if "bias" not in name}, folder / "missing.pt")
    (folder / "empty.pt").touch()
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("text", "no checkpoint")
    (folder / "pickle2.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (folder / "cut.safetensors").write_bytes((run / "init.safetensors").read_bytes()[:5_000])
    (folder / "norun").mkdir()
    for name, (old, new) in OTHER_VERSIONS.items():
        write_other_version(run, folder / name, old, new)
    (folder / "cut.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes()[:5_000])
    (folder / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    return {path.name: path for path in folder.iterdir()} | {"run": run, "gone": folder / "gone"}


BAD = {
    "gone": (["{gone}"], r"gone: there is no such file or folder"),
    "text": (["{text.pt}", *SMALL, *IMAGES], r"text\.pt is damaged or not a checkpoint"),
    "text-safetensors": (["{text.safetensors}", *SMALL, *IMAGES], r"is damaged or not a safetensors file"),
    "empty": (
        ["{empty.pt}", *SMALL, *IMAGES],
        r"empty\.pt is damaged or not a checkpoint \(it is empty\); give a file",
    ),
    "zip": (["{zip.pt}", *SMALL, *IMAGES], r"zip\.pt is damaged .*\(a zip archive that torch\.save did not write\)"),
    "cut": (["{cut.ckpt}", *SMALL, *IMAGES], r"cut\.ckpt is damaged or not a checkpoint \(it is cut off\)"),
    "cut-safetensors": (["{cut.safetensors}", *SMALL, *IMAGES], r"cut\.safetensors is damaged .*; give a file"),
    "pickle": (["{plain.pkl}", *SMALL, *IMAGES], r"plain\.pkl is damaged or not a checkpoint \(a pickle that"),
    "pickle-2": (["{pickle2.pt}", *SMALL, *IMAGES], r"pickle2\.pt is damaged or not a checkpoint \(a pickle that"),
    "folder": (["{norun}", *SMALL, *IMAGES], r"norun holds no checkpoints; give a run's folder, or checkpoint files"),
    "bomb": (
        ["{bomb.pt}", *SMALL, *IMAGES],
        r"bomb\.pt holds more than tensors and asks for code, which is not executed",
    ),
    "list": (["{list.pt}", *SMALL, *IMAGES], r"list\.pt holds a list, not a state dict"),
    "settings": (["{settings.pt}", *SMALL, *IMAGES], r"settings\.pt holds no state dict.* it holds lr"),
    "extra": (
        ["{extra.pt}", *SMALL, *IMAGES],
        r"does not fit MLP: .*1 unexpected \(extra\.weight\)",
    ),
    "missing": (["{missing.pt}", *SMALL, *IMAGES], r"2 missing \(layers\.0\.bias, layers\.1\.bias\)"),
    "shape": (
        ["{good.pt}", "--model", "lnsgd.models.MLP", "--model.widths", "[784,7,10]", *IMAGES],
        r"3 of another shape \(layers\.0\.weight \(6, 784\) for \(7, 784\), .*--model",
    ),
    "no-run": (["{norun}"], r"norun has no config\.yaml, so it is not a run"),
    "no-model": (["{good.pt}"], r"no config\.yaml .* give it, such as --model"),
    "no-data": (["{good.pt}", *SMALL], r"give the data too, such as --data"),
    "unknown-measure": (
        ["{run}", "--measures", "Actives"],
        r"--measures Actives is unknown \(did you mean 'ActiveNeurons'\?\); choose one of .*ActiveNeurons",
    ),
    "no-measure": (["{run}", "--measures", "lnsgd.callbacks.StepProgressBar"], r"does not measure; choose one of"),
    "unknown-option": (
        ["{run}", "--measures", "HessianTrace", "--measures.HessianTrace.probes", "3"],
        r"takes no 'probes'; it takes .*max_probes",
    ),
    "wrong-value": (
        ["{run}", "--measures", "HessianTrace", "--measures.HessianTrace.examples", "few"],
        r"HessianTrace\.examples|few",
    ),
    "not-among": (
        ["{run}", "--measures", "WeightNorms", "--measures.HessianTrace.rtol", "1"],
        r"HessianTrace is not among the measures",
    ),
    "unknown-model": (
        ["{good.pt}", "--model", "lnsgd.models.MPL", *IMAGES],
        r"--model lnsgd\.models\.MPL cannot be imported",
    ),
    "no-module": (["{good.pt}", "--model", "pathlib.Path", *IMAGES], r"gives a .*Path, not a Module"),
    "model-argument": (
        ["{good.pt}", "--model", "MLP", "--model.width", "3", *IMAGES],
        r"MLP takes no 'width'; it takes widths",
    ),
    "argument-of-nothing": (
        ["{run}", "--data.subset", "3"],
        r"--data\.subset is an argument of --data, which is missing; give --data too",
    ),
    "accelerator": (["{run}", "--accelerator", "tpu"], r"accelerator = tpu; choose auto, cpu or cuda"),
    "batch-size": (["{run}", "--batch-size", "0"], r"batch size = 0; give at least 1"),
    "unfit-data": (
        ["{run}", "--data", "CIFAR10", "--data.data_dir", "{gone}", "--measures", "Performance"],
        r"CIFAR|cifar",
    ),
    "unfit-inputs": (
        ["{run}", "--data", "Hypercube", "--data.dimension", "5", "--measures", "Performance"],
        r"MLP does not take the data's inputs of shape \(5,\)",
    ),
    "init": (["{run}", "--init", "{text.pt}"], r"text\.pt is damaged or not a checkpoint"),
    "init-folder": (["{run}", "--init", "{norun}"], r"norun is a folder; give a file of weights"),
    "init-gone": (["{run}", "--init", "{gone}"], r"gone: there is no such file"),
    "init-shape": (["{run}", "--init", "{missing.pt}"], r"missing\.pt does not fit MLP: .*2 missing"),
    "other-class": (
        ["{other-class}"],
        r"config\.yaml: .* no Learner; it was written by lnsgd 0\.0\.1, and this is .*: mend it",
    ),
    "other-room": (["{other-room}"], r"config\.yaml: .*attribute nets; it was written by lnsgd 0\.0\.1"),
    "other-option": (
        ["{other-option}"],
        r"MLP has no option 'sizes'; it takes: widths.*; it was written by lnsgd 0\.0\.1",
    ),
    "other-data": (["{other-data}"], r"config\.yaml: .* no Digits; it was written by lnsgd 0\.0\.1"),
    "no-data-entry": (["{no-data-entry}"], r"config\.yaml is not the config of a run \(it has no 'data'\)"),
    "no-entries": (["{no-entries}"], r"config\.yaml is not the config of a run \(it has no names\)"),
    "compare-text": (["--compare", "{run}", "{text.pt}", *SMALL, *IMAGES], r"text\.pt is damaged or not a checkpoint"),
    "compare-cut": (["--compare", "{cut.ckpt}", "{good.pt}", *SMALL, *IMAGES], r"cut\.ckpt is damaged .*cut off"),
    "compare-other": (
        ["--compare", "{run}", "{other-class}"],
        r"other-class/config\.yaml: .* no Learner; it was written by",
    ),
    "compare-init": (["--compare", "{run}", "{run}", "--init", "{cut.safetensors}"], r"cut\.safetensors is damaged"),
    "compare-no-init": (
        ["--compare", "{good.pt}", "{good.pt}", *SMALL, *IMAGES, "--measures", "DistanceFromInit"],
        r"DistanceFromInit cannot be taken of good: there are no initial weights θ₀; give their file with --init",
    ),
    "no-init": (
        ["{good.pt}", *SMALL, *IMAGES, "--measures", "DistanceFromInit"],
        r"DistanceFromInit cannot be taken of good: there are no initial weights θ₀; give their file with --init",
    ),
    "nothing": ([], r"nothing to analyze"),
    "option": (["{run}", "--measure", "HessianTrace"], r"--measure"),
    "points": (["--compare", "{run}", "{run}", "--points", "1"], r"points = 1"),
    "batch-norm": (["--compare", "{run}", "{run}", "--batch-norm", "none"], r"batch_norm = none; choose one of"),
    "features-not-called": (
        ["--compare", "{run}", "{run}", "--features", "net.layers"],
        r"features = net\.layers: a forward pass does not call it",
    ),
    "features": (["--compare", "{run}", "{run}", "--features", "head"], r"features = head: there is no such module"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line(name: str, files, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNSGD_DEBUG", raising=False)
    args, expected = BAD[name]
    known = {f"{{{key}}}": str(path) for key, path in files.items()}
    with pytest.raises(SystemExit) as ended:
        main(["analyze", *(known.get(arg, arg) for arg in args)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lnsgd: error: ")
    assert re.search(expected, line), line
    assert list(tmp_path.iterdir()) == []
    assert not (files["bomb.pt"].parent / "touched").exists()


def test_distance_without_initial_weights_is_left_out_with_a_message(run: Path, tmp_path: Path, capsys) -> None:
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "init.safetensors").unlink()
    checkpoint = str(bare / "checkpoints" / "last.ckpt")
    only = ["--measures", "default,Performance", "--batch-size", "120"]
    main(["analyze", checkpoint, *only, "--out", str(tmp_path / "a")])
    said = "there are no initial weights θ₀; give their file with --init"
    assert f"DistanceFromInit is left out: {said}" in capsys.readouterr().out
    assert "distance_from_init" not in set(pd.read_parquet(tmp_path / "a" / "analysis.parquet").measure)
    main(["analyze", "--compare", str(run), str(bare), *only, "--points", "2", "--out", str(tmp_path / "b")])
    assert f"DistanceFromInit is left out: of bare {said}" in capsys.readouterr().out
    assert "distance_from_init" not in set(pd.read_parquet(tmp_path / "b" / "differences.parquet").measure)


def test_checkpoint_of_a_newer_lightning_is_read(run: Path, tmp_path: Path) -> None:
    """Unknown entries are ignored."""
    newer = tmp_path / "run" / "checkpoints" / "last.ckpt"
    newer.parent.mkdir(parents=True)
    shutil.copy(run / "config.yaml", tmp_path / "run")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    torch.save({**content, "pytorch-lightning_version": "9.0.0", "entry_of_the_future": [1]}, newer)
    tables = []
    for checkpoint in (newer, run / "checkpoints" / "last.ckpt"):
        main(["analyze", str(checkpoint), "--measures", "WeightNorms", "--out", str(tmp_path / "out")])
        tables.append(pd.read_parquet(tmp_path / "out" / "analysis.parquet").drop(columns="checkpoint"))
    pd.testing.assert_frame_equal(*tables)


def test_prefix_is_the_one_that_matches_most_names(tmp_path: Path) -> None:
    """A name that matches by chance is outvoted."""
    from lnsgd.analysis.weights import fit_names

    given = {f"net.{name}": tensor for name, tensor in weights(0).items()} | {"ema.0.weight": torch.zeros(5, 3)}
    found = fit_names(given, weights(1), tmp_path, "Sequential")
    assert found.tensors.keys() == weights(0).keys()
    assert found.note == "names without their prefix 'net.', 1 tensors without it left out"
