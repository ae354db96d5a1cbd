"""What pyproject.toml, environment.yml and requirements.lock say of the same packages agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
UP = (ROOT / "requirements-up.lock").read_text(encoding="utf-8")
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]

# PyPI name -> conda-forge name, where they differ
CONDA_NAMES: dict[str, str] = {}

LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>(?:.*\\\n)+.*)", re.MULTILINE)


def _declared(*extras: str) -> dict[str, SpecifierSet]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    found = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(each.name): each.specifier for each in found}


def _conda() -> dict[str, SpecifierSet]:
    pairs = [line.partition(" ") for line in CONDA if isinstance(line, str)]
    return {name: SpecifierSet(floor) for name, _, floor in pairs}


def test_conda_has_the_same_packages_and_floors() -> None:
    """environment.yml asks for exactly what the package asks for, beside Python and pip themselves."""
    asked = {CONDA_NAMES.get(name, name): floor for name, floor in _declared().items()}
    assert {name: floor for name, floor in _conda().items() if name not in {"python", "pip"}} == asked


def test_conda_has_the_same_python() -> None:
    """environment.yml takes the Pythons that the package supports."""
    assert _conda()["python"] == SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_the_clone() -> None:
    """environment.yml installs the package itself, so that `koubou` is there."""
    assert {"pip": ["-e ."]} in CONDA


def test_lock_satisfies_pyproject() -> None:
    """Every declared package is locked, at a version that its floor allows."""
    locked = {canonicalize_name(found["name"]): found["version"] for found in LOCKED.finditer(LOCK)}
    asked = _declared("dev", "clone", "llm", "notebook")
    assert asked.keys() <= locked.keys()
    assert not {name: locked[name] for name, floor in asked.items() if locked[name] not in floor}


def test_what_make_up_installs_is_what_the_tests_run_with() -> None:
    """The product alone, at the versions and hashes of the whole lock: nothing is installed twice."""
    whole = {found["name"]: found[0] for found in LOCKED.finditer(LOCK)}
    product = {found["name"]: found[0] for found in LOCKED.finditer(UP)}
    assert product == {name: whole.get(name) for name in product}
    named = {canonicalize_name(name) for name in product}
    assert _declared("clone", "llm", "notebook").keys() <= named
    assert named.isdisjoint({"hypothesis", "mypy", "playwright", "pytest", "ruff", "scikit-learn"})


def test_lock_pins_and_hashes_every_line() -> None:
    """Each package of the lock is pinned with `==` and carries at least one sha256."""
    entries = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    found = list(LOCKED.finditer(LOCK))
    assert [each["name"] for each in found] == [re.split(r"[=<>\s;]", line)[0] for line in entries]
    assert all("--hash=sha256:" in each["rest"] for each in found)


@pytest.mark.parametrize(
    "trace", ["://", "--index", "--extra-index", "--find-links", "--trusted-host", "@", "/"]
)
def test_lock_names_no_place(trace: str) -> None:
    """The lock has no address, option or path in it, so that it is good on any machine."""
    assert trace not in LOCK
