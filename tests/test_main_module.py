"""``python -m lnsgd`` is the command ``lnsgd``."""

import subprocess
import sys

import lnsgd


def run_module(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lnsgd", *args], capture_output=True, text=True)


def test_the_module_runs_the_command() -> None:
    ended = run_module("--version")
    assert (ended.returncode, ended.stdout) == (0, f"{lnsgd.__version__}\n")


def test_the_module_ends_with_the_code_of_the_command() -> None:
    ended = run_module("trian")
    assert ended.returncode == 2
    assert ended.stderr.startswith("lnsgd: error: there is no command 'trian'")
