"""The places that name versions of dependencies and of Python agree."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ["3.11", "3.12", "3.13"]


def claimed() -> set[str]:
    """Return the versions of Python that the classifiers claim."""
    said = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in PROJECT["project"]["classifiers"])
    return {match[1] for match in said if match}


def wanted() -> list[Requirement]:
    return [Requirement(text) for text in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]]


def locked(python: str) -> dict[str, str]:
    """Return the versions in constraints.txt for a version of Python on Linux, by name."""
    machine = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    machine |= {"platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    given = [Requirement(line) for line in lines]
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for r in given
        if r.marker is None or r.marker.evaluate(machine)
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locked_versions_are_allowed(python: str) -> None:
    versions = locked(python)
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in constraints.txt; run `make lock`"
        assert requirement.specifier.contains(versions[name]), f"{name}; run `make lock`"


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in wanted():
        assert any(part.operator == ">=" for part in requirement.specifier), requirement


def test_python_versions_agree() -> None:
    needed = SpecifierSet(PROJECT["project"]["requires-python"])
    lowest = str(needed).removeprefix(">=")
    assert all(needed.contains(python) for python in claimed() | set(PYTHONS))
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest == PYTHONS[0]
    major, minor = lowest.split(".")
    assert f"sys.version_info < ({major}, {minor})" in (ROOT / "Makefile").read_text()
    assert f"Python ≥ {lowest}" in (ROOT / "README.md").read_text()


def test_the_readme_claims_the_pythons_of_the_classifiers() -> None:
    rows = dict(re.findall(r"^\| Python (3\.\d+) \| (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {python for python, how in rows.items() if how == "tested"} == claimed()
    assert set(rows) == set(PYTHONS)


def test_what_is_installed_fits_together() -> None:
    """Run ``pip check`` for lnsgd and its dependencies."""
    ended = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    names = {canonicalize_name(Requirement(text).name) for text in requires("lnsgd") or []} | {"lnsgd"}
    complaints = [line for line in ended.stdout.splitlines() if line.split(" ")[0] in names]
    assert complaints == []
    assert "No module named pip" not in ended.stderr
