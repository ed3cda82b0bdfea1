"""What the README files tell people to type works."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import compare, run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("experiments/papers/*/README.md"))]
SCRIPTS = {"experiments/run.py": run.main, "experiments/compare.py": compare.main}
CHEAP = {"--list", "--dry-run"}


def commands() -> list[str]:
    """All of our commands in fenced blocks."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                part.strip() for line in lines for part in line.split("&&") if "python experiments" in part
            ]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """One current directory for all commands, so that the demo corpus is made once."""
    return tmp_path_factory.mktemp("workshop")


def test_the_commands_are_found():
    found = commands()
    assert "python experiments/run.py --paper audiosr" in found
    assert len(found) > 5


@pytest.mark.parametrize("command", commands())
def test_a_command_works(command, workshop, tiny_corpus, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    python, script, *arguments = shlex.split(re.sub("/path/to/[^ ]*", str(tiny_corpus), command))
    assert python == "python"
    if script == "experiments/run.py" and not CHEAP & set(arguments):
        arguments.append("--dry-run")
    assert SCRIPTS[script](arguments) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) > 5
    assert not printed.err


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
