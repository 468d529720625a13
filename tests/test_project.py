"""The files around the sources agree with each other: one version, a complete lock, no target that is not there."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import pvnas

ROOT = Path(__file__).resolve().parents[1]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_there_is_one_version() -> None:
    assert pyproject()["project"]["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pvnas.__version__
    assert f"## {pvnas.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_lock_pins_every_package_that_is_asked_for() -> None:
    project = pyproject()["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {_canonical(line) for line in lock if re.match(r"[\w.-]+==[\w.+!]+", line)}
    assert {_canonical(line) for line in asked} <= pinned


def _canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!;\[]", requirement)[0]).lower()


def test_the_oldest_python_is_what_the_tools_check_against() -> None:
    settings = pyproject()
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert settings["tool"]["mypy"]["python_version"] == oldest
    assert settings["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")


NAMING = (
    "README.md",
    "CONTRIBUTING.md",
    ".github/workflows/ci.yml",
    ".github/pull_request_template.md",
    "docs/conf.py",
)


@pytest.mark.parametrize("document", NAMING)
def test_every_make_target_that_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"(?:^ +|`|- run: )make ([a-z0-9-]+)", text, re.MULTILINE)
    assert named
    assert set(named) <= makefile_targets()


def test_every_test_that_the_makefile_names_is_there() -> None:
    named = re.findall(r"\btests/[\w/.]+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_public_ci_covers_what_the_metadata_promises() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    classifiers = pyproject()["project"]["classifiers"]
    prefix = "Programming Language :: Python :: "
    assert matrix["python"] == [c.removeprefix(prefix) for c in classifiers if c.startswith(prefix + "3.")]
    systems = {"ubuntu": "Operating System :: POSIX :: Linux", "macos": "Operating System :: MacOS"}
    assert {systems[image.partition("-")[0]] for image in matrix["os"]} <= set(classifiers)


def test_hooks_run_what_make_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)", ".venv/bin")
    assert {hook["language"] for hook in hooks} == {"system"}  # nothing is downloaded
    for hook in hooks:
        assert hook["entry"].removesuffix(" --fix") in recipes
    folder = Path(sys.executable).parent
    assert all((folder / Path(hook["entry"].split()[0]).name).exists() for hook in hooks)


@pytest.mark.parametrize("form", ["bug", "idea"])
def test_issue_forms_are_whole(form: str) -> None:
    content = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / f"{form}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= content.keys()
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in content["body"])
