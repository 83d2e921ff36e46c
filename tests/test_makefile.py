"""What ``make`` would run: the demo without the developers' tools, uv where there is one, and locked versions in CI."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(folder: Path, target: str, *, uv: bool = False, ci: bool = False) -> str:
    """Return the commands of a target in a checkout without .venv, by ``make --dry-run``."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    tools = folder / "tools"  # the whole PATH, so that a uv of this machine is not found
    tools.mkdir()
    for name in ("sh", *(["uv"] if uv else [])):
        (tools / name).symlink_to("/bin/sh")
    make = shutil.which("make")
    assert make is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "MAKE", "MFLAGS"))}
    environment |= {"PATH": str(tools)} | ({"CI": "true"} if ci else {})
    call = [make, "--dry-run", "--no-print-directory", target]
    ended = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("target", ["demo", "install"])
def test_users_get_no_tools_of_developers(target: str, tmp_path: Path) -> None:
    printed = commands(tmp_path, target)
    assert "pip install  --editable ." in printed
    assert "--group" not in printed
    assert "--constraint" not in printed


@pytest.mark.parametrize("target", ["test", "test-all", "lint", "format", "wheel", "docs", "install-dev"])
def test_developers_get_their_tools_after_the_package(target: str, tmp_path: Path) -> None:
    printed = commands(tmp_path, target)
    package, tools = printed.index("--editable . >"), printed.index("--editable . --group dev >")
    assert package < printed.index("--upgrade") < tools


@pytest.mark.parametrize("uv", [False, True], ids=["pip", "uv"])
def test_uv_installs_where_there_is_one(uv: bool, tmp_path: Path) -> None:
    printed = commands(tmp_path, "install-dev", uv=uv)
    assert printed.count("uv pip install --python .venv/bin/python") == (2 if uv else 0)
    assert printed.count(".venv/bin/python -m pip install") == (0 if uv else 3)


def test_continuous_integration_installs_locked_versions(tmp_path: Path) -> None:
    assert commands(tmp_path, "install-dev", ci=True).count("--constraint constraints.txt --editable .") == 2
