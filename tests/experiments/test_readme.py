"""What the README files tell people to type works."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import compare, enhance, evaluate, figures, generate, listen, run, sweep

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("experiments/papers/*/README.md"))]
SCRIPTS = {
    f"experiments/{script.__name__.rpartition('.')[2]}.py": script.main
    for script in (compare, enhance, evaluate, figures, generate, listen, run, sweep)
}
SCRIPTS["slurm/run.sbatch"] = run.main  # which hands its arguments on
OURS = re.compile(r"^\s*(python|torchrun|sbatch)\b.*?\b(experiments/\w+\.py|slurm/run\.sbatch)\b(.*)")
CHEAP = {"--list", "--dry-run", "--verify"}


def commands() -> list[str]:
    """All of our commands in fenced blocks."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [part.strip() for line in lines for part in line.split("&&") if OURS.search(part)]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, tiny_corpus) -> Path:
    """One current directory for all commands, with the README's own files and what its results are named."""
    place = tmp_path_factory.mktemp("workshop")
    for name, language in (("mine.py", "python"), ("mine.yaml", "yaml")):
        fenced = re.search(rf"^```{language}\n(.*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
        (place / name).write_text(fenced[1])
    (place / "recordings").symlink_to(tiny_corpus / "speech")
    for name in ("sweeps", "experiments"):
        (place / name).symlink_to(ROOT / name)
    small = ["--preset", "smoke", "data.test_files=1", "datasets.esc50=null", "datasets.audiostock=null"]
    where = [f"data.root={tiny_corpus}", "data.workers=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run.main(["--paper", "audiosr", "--row", "AudioSR", "--row", "GT-Mel", *small, *where]) == 0
        own = ["--method", "mine.py:Net", "--row", "Unprocessed"]
        assert run.main(["--paper", "audiosr", *own, *small, *where]) == 0
        spline = ["--paper", "audioedsr", "--row", "Spline", "--preset", "smoke", "data.test_files=1"]
        assert run.main([*spline, *where]) == 0
    return place


def test_the_commands_are_found():
    found = commands()
    assert "python experiments/run.py --paper audiosr" in found
    assert len(found) > 5


@pytest.mark.parametrize("command", commands())
def test_a_command_works(command, workshop, tiny_corpus, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    _, script, arguments = OURS.search(re.sub("/path/to/[^ ]*", str(tiny_corpus), command)).groups()
    arguments, runs = shlex.split(arguments), SCRIPTS[script] is run.main
    if (runs or script == "experiments/sweep.py") and not CHEAP & set(arguments):
        arguments.append("--dry-run")
    assert SCRIPTS[script](arguments) == 0
    printed = capsys.readouterr()
    assert printed.out or "--output" in arguments
    if runs:
        assert len(printed.out.splitlines()) > 5
        assert not printed.err


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
