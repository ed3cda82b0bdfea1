r"""Names are text: what users call files, recordings, speakers, systems and corpora, wherever it goes.

A name never goes as it is to something that reads marks in it. Each place has its helper here:

    a line of a terminal, a log, a message   one_line(name)        no newline, escape or lost byte is in it
    rich: console.print                      say(console, text)    no [markup], no :emoji:, no wrapping
    rich: cells, titles, descriptions        Text(one_line(name)), TextColumn(..., markup=False)
    a picture's title, label or legend       label(name)           no $mathematics$
    HTML: text and attributes                html_text(name)
    HTML: src and href                       html_url(path)        only `/` keeps its meaning
    a cell of a Markdown table               markdown(name)
    CSV                                      csv_text(rows)        csv.reader gives back the same cells
    the name of a file, or a part of it      shortened(name)       at most so many bytes
    the files of recordings, by their ids    file_names(ids)       no two ids have one name
    an artifact of W&B                       wandb_name(name)      letters, digits, `.`, `_`, `-` of ASCII

A name that is no UTF-8 (Python has surrogates for its bytes) cannot be kept in a store, a record or a page:
whoever lists files leaves it out by `is_text(name)`, and says so with `one_line(name)`.
"""

import csv
import hashlib
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from urllib.parse import quote

LONGEST = 255 - len(".wav")  # bytes of a name without its suffix; file systems take 255
TURNING = {*map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C))}
UNSEEN = {
    "Cc",
    "Cs",
    "Zl",
    "Zp",
}  # of Unicode's categories: controls, surrogates, ends of lines and paragraphs
# Of Markdown: what ends a cell, and what begins markup; `_` between letters does not.
MARKUP = re.compile(r"[\\|`*\[\]]|<(?=[A-Za-z/!?])|&(?=[#\w]+;)|(?<![^\W_])_|_(?![^\W_])")


# To read ---------------------------------------------------------------------------------------------------


def is_text(name: object) -> bool:
    """Whether a name can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in str(name))


def _escaped(character: str) -> str:
    """A character as Python writes it; a byte that was no UTF-8 as that byte."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(name: object, keep: str = "") -> str:
    r"""A text whose controls, lost bytes and turns of direction are escaped: `\n`, `\xe9`, `\u202e`.

    keep: characters that stay.
    """
    return "".join(
        _escaped(character)
        if character not in keep and (unicodedata.category(character) in UNSEEN or character in TURNING)
        else character
        for character in str(name)
    )


def say(console, text: object) -> None:
    """Prints a text to a rich console, as it is."""
    plain = one_line(text, keep="\n")
    console.print(plain, markup=False, highlight=False, emoji=False, soft_wrap=True)


def label(text: object) -> str:
    r"""A text as matplotlib draws it: no `$` of it begins mathematics. Its lines stay lines."""
    return one_line(text, keep="\n").replace("$", r"\$")


def html_text(value: object) -> str:
    """A text in HTML, also as an attribute between quotes."""
    return html.escape(one_line(value, keep="\n\t"))


def html_url(path: object) -> str:
    """A relative path as an address of HTML, between quotes."""
    return html.escape(quote(str(path), errors="surrogateescape"))


def markdown(text: object) -> str:
    """A text in a cell of a Markdown table, as it is."""
    return MARKUP.sub(r"\\\g<0>", one_line(text))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Rows as CSV, ended by `\n`. A cell with any end of a line in it is quoted, `\r`, too."""
    lines = []
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(row)
        lines.append(line.getvalue()[:-2] + "\n")
    return "".join(lines)


# To store --------------------------------------------------------------------------------------------------


def digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name of at most `longest` bytes: itself, or its beginning and a digest of the whole."""
    whole = name.encode("utf-8", "surrogateescape")
    if len(whole) <= longest:
        return name
    end = f"-{digest(name)}"
    return whole[: longest - len(end)].decode("utf-8", "ignore") + end


def file_names(ids: Iterable[str]) -> Mapping[str, str]:
    """The file's name, without suffix, of each id; no two are the same.

    `speaker/take` is `speaker_take`. Where several ids come to one name, the first in order has it, and the
    others have a digest at the end. So the first few ids in order have the same names alone as among all.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id_ in sorted(set(ids)):
        name = shortened(id_.replace("/", "_"))
        if name in taken:
            end = f"-{digest(id_)}"
            name = shortened(name, LONGEST - len(end)) + end
        taken.add(name)
        names[id_] = name
    return names


def wandb_name(name: str) -> str:
    """At most 128 letters, digits, `.`, `_` and `-`: all that W&B takes for an artifact."""
    return shortened(re.sub(r"[^A-Za-z0-9._-]", "_", name), 128)
