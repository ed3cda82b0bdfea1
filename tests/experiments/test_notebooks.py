"""The notebooks are what their format says, and work from the first cell to the last."""

import ast
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import soundfile
from test_readme import ROOT, SCRIPTS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def cells(path: Path, kind: str) -> list[str]:
    """The sources of all cells of a kind, `code` or `markdown`."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def as_python(source: str) -> str:
    """A code cell, its `!` and `%` lines as calls of `shell` that fill in names in braces."""
    return re.sub(r"^( *)[!%](.+)$", lambda found: f"{found[1]}shell(f{found[2]!r})", source, flags=re.M)


def test_there_is_one_of_the_paper_that_began_as_a_notebook():
    assert [path.name for path in NOTEBOOKS] == ["fma_unet.ipynb"]


@by_name
def test_its_format_is_notebook_4_5_without_results(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert notebook["metadata"]["kernelspec"].keys() >= {"name", "display_name"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id_) for id_ in ids)
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert cell.keys() == keys | {"outputs", "execution_count"}
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            assert cell["cell_type"] == "markdown"
            assert cell.keys() == keys
        assert all(line.endswith("\n") for line in cell["source"][:-1])


@by_name
def test_every_cell_compiles(path):
    for source in cells(path, "code"):
        ast.parse(as_python(source))


def test_shell_lines_become_calls():
    assert as_python("if x:\n    !python a.py {x} 'b'\n%cd {x}\ny != 1") == (
        "if x:\n    shell(f\"python a.py {x} 'b'\")\nshell(f'cd {x}')\ny != 1"
    )


class Image:
    """In the place of IPython's: a file that is shown."""

    def __init__(self, filename: str):
        self.path = Path(filename)


class Audio(Image):
    """A file that can be played."""


@by_name
def test_it_works_from_the_first_cell_to_the_last(path, tiny_corpus, workplace, capsys):
    """Twice, as after a session that was cut; small, and with the tiny corpus in the place of FMA."""
    source = "\n\n".join(as_python(cell) for cell in cells(path, "code"))
    corpora = f"data.root={tiny_corpus} data.workers=1 segment=8192"
    for setting, value in (("preset", "smoke"), ("corpora", corpora)):
        source, changed = re.subn(rf"^{setting} = \".*?\"", f"{setting} = {value!r}", source, flags=re.M)
        assert changed == 1
    source, imported = re.subn(r"^from IPython.display import Audio, Image, display$", "", source, flags=re.M)
    assert imported == 1  # it is not among the suite's packages
    script = workplace / "notebook.py"
    script.write_text(source)
    ran, shown = [], []

    def shell(line: str) -> None:
        command, *arguments = shlex.split(line)
        ran.append(line)
        if command == "python":
            assert SCRIPTS[arguments[0]](arguments[1:]) == 0, line
        else:
            assert command in ("cd", "pip"), line

    for session in (1, 2):
        ran.clear(), shown.clear()
        given = {"Audio": Audio, "Image": Image, "display": lambda *things: shown.extend(things)}
        runpy.run_path(str(script), given | {"shell": shell})
        assert ("nothing to do" in capsys.readouterr().out) == (session == 2)
    assert [line.split()[1] for line in ran if line.startswith("python")] == [
        *["experiments/run.py"] * 2,
        "experiments/compare.py",
    ]
    kept = workplace / "kept"
    pictures = [each.path for each in shown if type(each) is Image]
    assert kept / "runs/fma_unet/figures/figure1.png" in pictures
    assert all(picture.is_file() for picture in pictures)
    assert len(pictures) == 2
    heard = [each.path for each in shown if type(each) is Audio]
    assert [sound.parent.name for sound in heard] == ["input", "estimate", "reference"]
    assert {soundfile.info(sound).samplerate for sound in heard} == {44100}
    assert not {found.name for found in workplace.iterdir()} - {
        "kept",
        "notebook.py",
    }  # all else is on the drive
