"""Workflows, forms and metadata are valid, call the Makefile's targets, and agree with the package."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lnsgd
from tests.test_supply import PROJECT, PYTHONS

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
REPOSITORY = PROJECT["project"]["urls"]["Source"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def jobs() -> dict[str, dict[str, Any]]:
    return {f"{path.stem}/{name}": job for path in WORKFLOWS for name, job in read_yaml(path)["jobs"].items()}


def make_targets(text: str) -> list[str]:
    """Targets that a text tells the reader to ``make``."""
    return [target for command in re.findall(r"\bmake((?: [a-z][a-z-]*)+)", text) for target in command.split()]


def test_there_are_workflows_for_lint_tests_wheel_and_docs() -> None:
    assert {"ci/lint", "ci/test", "ci/wheel", "ci/docs"} <= set(jobs())


@pytest.mark.parametrize("name", jobs())
def test_workflow_jobs_run_targets_of_the_makefile(name: str) -> None:
    job = jobs()[name]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert re.fullmatch(r"make( [a-z][a-z-]*)+", command)
        assert set(make_targets(command)) <= TARGETS
    assert all("uses" in step or "run" in step for step in job["steps"])
    assert job["timeout-minutes"] <= 60


def test_workflows_test_the_supported_pythons() -> None:
    assert jobs()["ci/test"]["strategy"]["matrix"]["python"] == PYTHONS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", ".github/pull_request_template.md", ".ci/run"])
def test_make_targets_of_pages_exist(page: str) -> None:
    lines = (ROOT / page).read_text().splitlines()
    commands = [code for line in lines for code in re.findall(r"(?:^\$ |^|`)(make [^`]+)", line)]
    named = [target for command in commands for target in make_targets(command.split("#")[0])]
    assert set(named) <= TARGETS
    assert named or page == ".ci/run"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_complete(path: Path) -> None:
    form = read_yaml(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(names) == len(set(names))
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_citation_agrees_with_the_package() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    project = PROJECT["project"]
    assert citation["version"] == lnsgd.__version__
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert citation["repository-code"] == REPOSITORY


def test_readme_names_every_paper_of_the_citation_file() -> None:
    readme = " ".join((ROOT / "README.md").read_text().replace("–", "-").split()).lower()
    for paper in read_yaml(ROOT / "CITATION.cff")["references"]:
        assert paper["title"].lower() in readme
        assert all(author["family-names"].lower() in readme for author in paper["authors"])
        assert paper["url"].lower() in readme


@pytest.mark.parametrize(
    "page", ["pyproject.toml", "CITATION.cff", "SECURITY.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
)
def test_one_address_of_the_repository(page: str) -> None:
    named = set(re.findall(r"https://github\.com/[\w.-]+/lnsgd", (ROOT / page).read_text()))
    assert named <= {REPOSITORY}


def test_continuous_integration_runs_tests_that_exist() -> None:
    named = re.findall(r"tests/[\w./]+", (ROOT / ".ci" / "run").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
