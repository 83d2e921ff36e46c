"""The installed package: built from a copy of the repository, used from another folder."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def git_files() -> list[str]:
    """Return every file that is in git or would be added, including symbolic links."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, to tell sources from what was built")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in listed if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist, the wheel that is built from it, and the log of the build."""
    pytest.importorskip("setuptools", minversion="77", reason="the build runs in this environment")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in git_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    ended = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    (out / "build.log").write_text(ended.stdout + ended.stderr)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("lnsgd-*.whl")
    return wheel


def needed() -> set[str]:
    """Return the files below ``lnsgd/`` that an installed package must have."""
    python = [*ROOT.glob("lnsgd/**/*.py"), *ROOT.glob("lnsgd/**/*.pyi"), *ROOT.glob("callbacks/**/*.py")]
    data = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("lnsgd/report/page/*")]
    names = [path.relative_to(ROOT) for path in [*python, *data]]
    moved = [Path("lnsgd", name) if name.parts[0] in ("callbacks", "configs") else name for name in names]
    lists = {f"figures/framework/{name}.yaml" for name in ("kept", "listing")}
    others = {"py.typed", "data/sample/mnist_sample.safetensors.gz", *lists}
    return {str(name) for name in moved} | {f"lnsgd/{name}" for name in others}


def test_needed_files_are_not_none() -> None:
    assert {"lnsgd/callbacks/base/scheduled.py", "lnsgd/configs/mnist.yaml", "lnsgd/cli.py"} <= needed()


def test_wheel_has_all_it_needs(wheel: Path) -> None:
    assert needed() - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_wheel_has_nothing_else(wheel: Path) -> None:
    """In particular there is not a package ``callbacks`` or ``tests`` at the top."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"lnsgd"}
    assert [name.partition(".dist-info/")[2] for name in names if "LICENSE" in name] == ["licenses/LICENSE"]
    assert "lnsgd/data/sample/README.md" in names  # it names the origin and the license of the images
    assert {name for name in names if name.endswith((".py", ".yaml"))} == {
        name for name in needed() if name.endswith((".py", ".yaml"))
    }


def test_the_build_warns_of_no_package(built: Path) -> None:
    """Setuptools warns of folders that it finds but that are not declared; `make install` would print pages of it."""
    assert "would be ignored" not in (built / "build.log").read_text()


def test_sdist_has_all_it_needs(built: Path) -> None:
    (sdist,) = built.glob("lnsgd-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert (needed() | {"pyproject.toml", "README.md", "LICENSE"}) - names == set()


PROBE = """\
import json
import sys
from importlib.metadata import distributions
from importlib.resources import files
from importlib.util import find_spec

import lnsgd
import lnsgd.callbacks
import lnsgd.cli
from lnsgd.data import MNIST
from lnsgd.figures.framework.command import FIGURES

mnist = MNIST(source="sample")
mnist.prepare_data()
mnist.setup()
print(json.dumps({
    "lnsgd": lnsgd.__file__,
    "callbacks": lnsgd.callbacks.__file__,
    "measure": find_spec("lnsgd.callbacks.base.scheduled").origin,
    "top": find_spec("callbacks") is not None,
    "figures": [figure.config_path(arm).is_file() for figure in FIGURES.values() for arm in figure.arms],
    "config": files("lnsgd").joinpath("configs/mnist.yaml").read_text(),
    "examples": len(mnist.splits["train"]),
    "version": [lnsgd.__version__, *(d.version for d in distributions(name="lnsgd", path=[sys.argv[1]]))],
}))
"""


def test_installed_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """Use the installed copy, which alone is on the path, with the dependencies of this environment."""
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], cwd=tmp_path, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-c", PROBE, str(target)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert all(Path(found[name]).is_relative_to(target) for name in ("lnsgd", "callbacks", "measure"))
    assert not found["top"]
    assert found["figures"]
    assert all(found["figures"])
    assert found["config"] == (ROOT / "configs" / "mnist.yaml").read_text()
    assert found["examples"] == 10_000
    assert len(set(found["version"])) == 1
    assert (target / "bin" / "lnsgd").exists()
