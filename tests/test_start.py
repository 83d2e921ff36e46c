"""Commands that need no class answer at once: they import nothing that takes seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lnsgd.cli import main
from lnsgd.figures.framework.catalogue import FIGURES
from lnsgd.figures.framework.listing import listed_figures
from tests.figures.handmade import handmade, handmade_sweep

HEAVY = {"torch", "pytorch_lightning", "lightning", "pandas", "numpy", "matplotlib", "numba", "scipy", "jsonargparse"}

RESULTS = Path(__file__).parents[1] / "docs" / "results"

# Prints the heavy packages that a command has imported, whichever way it ends.
PROBE = f"""\
import sys
from lnsgd.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print("code", ended.code)
print("heavy", *{HEAVY} & {{name.partition(".")[0] for name in sys.modules}})
"""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("reproduce list", None, "cornacchia-mnist"),
        ("reproduce hypercub", 2, "lists all"),
        ("reproduce cornacchia-mnist --scale large", 2, "choose ci, paper"),
        ("fit", 2, "lnsgd fit --config mnist"),
        ("fit --config mnist --help", 0, "--help-all"),
        ("fit --config mnits", 2, "did you mean mnist?"),
        ("validate", 2, "--ckpt_path"),
        ("sweep mnist-nois", 2, "did you mean mnist-noise?"),
        ("sweep --help", 0, "--dry-run"),
        ("table --help", 0, "--csv"),
        ("analyze", 2, "nothing to analyze"),
        ("report --help", 0, "--wandb"),
        ("report nowhere", 2, "nowhere is not a folder"),
        ("table nowhere", 2, "nowhere does not hold a sweep"),
    ],
)
def test_command_without_a_class_imports_nothing_heavy(command: str, code: int | None, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", PROBE, *command.split()], capture_output=True, text=True, timeout=120)
    *lines, heavy = ended.stdout.splitlines()
    assert heavy == "heavy"
    assert said in ended.stdout + ended.stderr
    assert lines[-1:] == [f"code {code}"] if code is not None else "code" not in lines[-1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, a run, and a figure without its arms."""
    folder = tmp_path_factory.mktemp("small")
    cells = [
        ({"noise.p": p, "seed_everything": seed}, {"trace/train": p + seed}) for p in (0.0, 0.5) for seed in (1, 3)
    ]
    measured = [(cell, step, "train", "trace", "", 1.0 / step) for cell in range(4) for step in (1, 10)]
    handmade_sweep(folder / "sweep", cells, {3: "failed"}, measured)
    handmade(folder / "run", [1, 10], {("train", "trace", ""): np.array([[3.0, 2.0]])})
    shutil.copytree(RESULTS / "cornacchia-basis", folder / "figure")
    return folder


@pytest.mark.parametrize(
    ("command", "packages", "said"),
    [
        ("table {}/sweep", "numpy", "4 cells: 3 done, 1 failed"),  # numpy and Arrow read Parquet
        ("report {}/figure --out {}/report.html", "", "1 figure"),
        ("report {} --out {}/report.html", "numpy pandas", "1 figure, 1 run, 1 sweep"),
    ],
)
def test_small_folders_are_shown_with_few_packages(command: str, packages: str, said: str, folders: Path) -> None:
    program = [sys.executable, "-c", PROBE, *command.replace("{}", str(folders)).split()]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
    *lines, heavy = ended.stdout.splitlines()
    assert sorted(heavy.split()[1:]) == packages.split()
    assert said in lines[-1]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("tabel runs", "'table'"),
        ("reproduce cornacchia-mnst", "'cornacchia-mnist'"),
        ("reproduce cornacchia-mnist --sede 3", "'--seeds'"),
        ("report runs --otu page.html", "'--out'"),
        ("sweep mnist-noise --slurm.partiton gpu", "'--slurm.partition'"),
    ],
)
def test_misspelled_name_gets_the_nearest(wrong: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert f"(did you mean {meant}?)" in line


@pytest.mark.parametrize("package", ["jsonargparse", "matplotlib", "numba", "pandas", "scipy", "torchvision"])
def test_callbacks_import_nothing_heavy_beside_lightning(package: str, imported_by_callbacks: set[str]) -> None:
    assert "lnsgd" in imported_by_callbacks
    assert package not in imported_by_callbacks


@pytest.fixture(scope="module")
def imported_by_callbacks() -> set[str]:
    """The packages that ``import lnsgd.callbacks`` imports after ``import pytorch_lightning``."""
    program = (
        "import sys, pytorch_lightning; before = set(sys.modules); import lnsgd.callbacks; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(ended.stdout.split())


def test_list_of_figures_is_that_of_the_figures() -> None:
    """Written anew by ``python scripts/write_summaries.py``."""
    listed = {name: (about.title, dict(about.scales)) for name, about in listed_figures().items()}
    assert list(listed) == list(FIGURES)
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert listed[name] == (figure.title, {scale: of.seeds for scale, of in figure.scales.items()})


@pytest.mark.parametrize("room", ["", ".sweep", ".analysis", ".report", ".loggers", ".training"])
def test_what_a_room_offers_can_be_imported(room: str) -> None:
    """The names are those of ``__init__.pyi``, and no module of the room hides one of them."""
    found = __import__(f"lnsgd{room}", fromlist=["*"])
    stub = Path(found.__file__).with_suffix(".pyi").read_text()
    for name in found.__all__:
        assert f" {name} as {name}" in stub
        assert getattr(found, name) is not None
