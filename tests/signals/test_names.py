"""Hostile names in every place that reads marks, against the readers of these places."""

import csv
import html
import io
import os
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from rich.console import Console

from signals.names import (
    LONGEST,
    csv_text,
    file_names,
    html_text,
    html_url,
    is_text,
    label,
    markdown,
    one_line,
    say,
    shortened,
    wandb_name,
)

HOSTILE = [
    "take_A$B_-_L$D",
    r"\$x$ \alpha^{2",
    "[red]x[/]",
    "[/x]",
    "[link=file:x]y[/link] :smile:",
    "<script>alert(1)</script>",
    "a & b &amp; c",
    """it's "quoted" `so`""",
    "100%20 of %d",
    "a#b",
    "what?x=1&y=2",
    "*_*all*_*",
    "two\nlines",
    "carriage\rreturn",
    "a\ttab",
    "😀👩‍👩‍👧",
    "e\u0301te\u0301",
    "שלום \u202egnp.exe",
    "-rf",
    "=1+1",
    "end ",
    "a..b",
    "back\\slash \\| and | pipe",
    "{task.description} {0}",
    "\x1b[31mred",
    "a,b;c",
    "x" * 250,
]
LOST = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_a_line_is_one_line_and_can_be_printed(name):
    told = one_line(name)
    assert told.encode() and len(told.splitlines()) == 1 and "\x1b" not in told and "\u202e" not in told
    assert one_line(told) == told


def test_what_is_escaped_is_named_as_python_writes_it():
    assert one_line(f"a\tb\nc {LOST} \u2028\x1b") == r"a\tb\nc caf\xe9 \u2028\x1b"
    assert one_line("e\u0301 😀👩‍👩‍👧 שלום $ [x] \\") == "e\u0301 😀👩‍👩‍👧 שלום $ [x] \\"
    assert (is_text(LOST), is_text("é")) == (False, True)


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_rich_prints_a_text_as_it_is(name):
    console = Console(file=io.StringIO(), width=40, force_terminal=False)
    say(console, name)
    assert console.file.getvalue() == one_line(name, keep="\n") + "\n"


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_matplotlib_draws_a_text_as_it_is(name):
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    text = Text(text=label(name), fontproperties=FontProperties())
    assert text._preprocess_math(text.get_text()) == (one_line(name, keep="\n"), False)


class Reader(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_html_shows_a_text_as_it_is(name):
    page = Reader(f'<p title="{html_text(name)}">{html_text(name)}</p>')
    assert page.tags == [("p", {"title": one_line(name, keep="\n\t")})]
    assert page.text == one_line(name, keep="\n\t")


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_an_address_leads_to_the_file(name):
    (_, attributes), *rest = Reader(f'<img src="{html_url(f"sub folder/{name}.wav")}">').tags
    address = urlsplit(attributes["src"])
    assert not (rest or address.query or address.fragment or address.scheme)
    assert unquote(address.path, errors="surrogateescape") == f"sub folder/{name}.wav"


def cells_of(line: str) -> list[str]:
    """A row of a table as GitHub's Markdown reads it: pipes first, then backslashes, then entities."""
    cells, cell = [], ""
    for character in line.strip()[1:-1]:
        if character == "|" and not cell.endswith("\\"):
            cells, cell = [*cells, cell.strip()], ""
        else:
            cell = cell[:-1] + "|" if character == "|" else cell + character
    unescaped = []
    for raw in [*cells, cell.strip()]:
        told, at = "", 0
        while at < len(raw):
            escape = raw[at] == "\\" and raw[at + 1 : at + 2] in {*"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}
            at += escape
            told, at = told + raw[at : at + 1], at + 1
        unescaped.append(told)
    return unescaped


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_markdown_keeps_a_cell_in_one(name):
    assert cells_of(f"| {markdown(name)} | 1 |") == [one_line(name).strip(), "1"]


def test_markdown_leaves_ordinary_cells_alone():
    for cell in ("vctk_4", "STFT_loss", "< 0.001", "3.2 / 3.4d", "95 % interval", "A - B"):
        assert markdown(cell) == cell
    assert markdown("<b>*x*</b> _y_ &lt;") == r"\<b>\*x\*\</b> \_y\_ \&lt;"


def test_csv_gives_back_its_cells():
    rows = [HOSTILE, HOSTILE[::-1]]
    text = csv_text(rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert csv_text([["a", 1, ""]]) == "a,1,\n"


@pytest.mark.parametrize("name", ["x" * 300, "ö" * 200, "😀" * 100, os.fsdecode(b"\xe9" * 300)])
def test_long_names_are_cut_to_what_a_file_system_takes(name, tmp_path):
    short = shortened(name)
    assert len(os.fsencode(short)) <= LONGEST and short != shortened(name + "y")
    (tmp_path / f"{short}.wav").touch()
    assert shortened("x" * LONGEST) == "x" * LONGEST


def test_no_two_ids_have_one_file():
    ids = ["a/b", "a_b", "a/b_c", "a_b/c", "a_b_c", "x" * 300, "x" * 301, "ordinary/take-1", "p225_001_mic1"]
    names = file_names(ids)
    assert len(set(names.values())) == len(ids)
    assert names["ordinary/take-1"] == "ordinary_take-1"
    assert names["p225_001_mic1"] == "p225_001_mic1"
    for count in range(len(ids)):  # as a record keeps the first few, and its page looks for all
        first = sorted(ids)[:count]
        assert file_names(first) == {id_: names[id_] for id_ in first}


@pytest.mark.parametrize("name", [*HOSTILE, LOST])
def test_wandb_takes_every_name(name):
    import re

    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", wandb_name(name))
    assert html.unescape(wandb_name("audiosr-vae")) == "audiosr-vae"
