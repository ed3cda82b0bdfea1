"""What is installed: constraints that fit the ranges, and torch and torchaudio as a pair that loads."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from experiments import installed

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
KINDS = ("CONSTRAINT", "BUILD_CONSTRAINT")
COMMANDS = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.py") if "def main(" in path.read_text()
)


def versions() -> dict[str, str]:
    return dict(line.split("==") for line in CONSTRAINTS)


def requirements() -> list[Requirement]:
    """Of the suite, its tests and its build."""
    project, extras = PROJECT["project"], PROJECT["project"]["optional-dependencies"]
    build = PROJECT["build-system"]["requires"]
    return [Requirement(text) for text in (*project["dependencies"], *extras["test"], *build)]


# Constraints ----------------------------------------------------------------------------------------------


def test_constraints_are_names_and_exact_versions():
    assert not [line for line in CONSTRAINTS if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)]
    names = [line.split("==")[0] for line in CONSTRAINTS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_range_admits_the_version_that_is_known(requirement):
    known = versions()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(known)


def test_readme_and_ci_use_them():
    lines = (ROOT / "README.md").read_text().splitlines()
    first, second = (line for line in lines if "pip install" in line and "&&" in line)
    assert first.startswith("pip install -c constraints.txt -e . &&")
    assert second.startswith(f"{' '.join(f'PIP_{kind}=constraints.txt' for kind in KINDS)} pip install -e")
    assert "PIP_CONSTRAINT=$PWD/constraints.txt" in (ROOT / ".ci" / "run").read_text()


# The pair -------------------------------------------------------------------------------------------------


def test_known_pairs_are_those_of_the_project():
    extras = PROJECT["project"]["optional-dependencies"]
    named = {key: sorted(extras[key]) for key in extras if key.startswith("torch-")}
    assert named == {
        f"torch-{torch}": [f"torch=={torch}", f"torchaudio=={torchaudio}"]
        for torch, torchaudio in installed.PAIRS.items()
    }
    assert (versions()["torch"], versions()["torchaudio"]) == next(iter(installed.PAIRS.items()))
    ranges = {requirement.name: requirement.specifier for requirement in requirements()}
    for torch, torchaudio in installed.PAIRS.items():
        assert ranges["torch"].contains(torch) and ranges["torchaudio"].contains(torchaudio)


@pytest.mark.parametrize(
    ("torch", "torchaudio", "known"),
    [
        ("2.11.0", "2.11.0", True),
        ("2.11.0", "2.11.1", False),
        ("2.11.0+cpu", "2.11.0+cpu", True),
        ("2.11.0+cpu", "2.11.0", False),
        ("9.9.9", "9.9.9", False),
    ],
)
def test_a_pair_is_known_where_both_are_of_one_build(torch, torchaudio, known):
    assert installed.known(torch, torchaudio) == known


@pytest.mark.parametrize(
    ("torch", "command"),
    [
        ("2.11.0", "pip install torch==2.11.0 torchaudio==2.11.0"),
        ("2.15.0+cu132", "pip install torch==2.15.0 torchaudio==2.11.1"),
        ("2.3.0", "pip install torch==2.11.0 torchaudio==2.11.0"),
    ],
)
def test_the_remedy_keeps_the_torch_that_is_there_if_it_can(torch, command):
    assert installed.remedy(torch) == command


@pytest.fixture
def broken(tmp_path) -> Path:
    """A folder that hides torchaudio behind one that does not load, as its version says."""
    (tmp_path / "torchaudio.py").write_text('raise OSError("lib.so: undefined symbol: torch_x\\nmore")')
    info = tmp_path / "torchaudio-2.99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.99.0\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pair_that_does_not_load_ends_every_command_in_one_line(command, broken):
    script = ROOT / "experiments" / f"{command}.py"
    environment = {"PYTHONPATH": f"{broken}:{ROOT}", "PATH": ""}
    done = subprocess.run([sys.executable, script, "--help"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    torch = installed.version("torch")
    assert line.startswith(f"torch {torch} and torchaudio 2.99.0 do not load together: pip install torch==")
    assert "undefined symbol: torch_x" in line


def test_a_pair_that_nobody_knows_is_tried(monkeypatch):
    monkeypatch.setattr(installed, "PAIRS", {"0.0.1": "0.0.1"})
    assert installed.trouble() is None  # for it loads here


def test_what_is_not_installed_is_said(monkeypatch):
    def version(name: str) -> str:
        raise installed.PackageNotFoundError(name)

    monkeypatch.setattr(installed, "version", version)
    assert installed.trouble() == "torch is not installed: pip install -c constraints.txt -e ."
