"""listen.py: a page that asks people what they hear, in an order that tells nothing."""

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile

from experiments.listen import main
from experiments.ratings import COLUMNS


@pytest.fixture
def folders(workplace):
    """Twelve recordings of two generators, before and after; a quarter as loud after."""
    wave = 0.4 * np.sin(np.arange(1600) / 5)
    for name, level, rate in (("before", 1.0, 16_000), ("after", 0.25, 48_000)):
        for number in range(12):
            path = workplace / name / ("musicgen", "audioldm")[number % 2] / f"{number} & #.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, level * wave, rate, "FLOAT")
    return workplace


def pairs(page: str) -> list[dict]:
    """What the page holds, in its order."""
    found = []
    for block in page.split('<div class="pair"')[1:]:
        data = {key: unescape(value) for key, value in re.findall(r'data-(\w+)="([^"]*)"', block)}
        data["sources"] = [unquote(source) for source in re.findall(r'src="([^"]*)"', block)]
        data["volumes"] = [float(volume) for volume in re.findall(r'data-volume="([^"]*)"', block)]
        found.append(data | {"radios": re.findall(r'name="([^"]*)" value="([^"]*)"', block)})
    return found


def test_the_page_has_every_pair_once_blind_and_equally_loud(folders, capsys):
    assert main(["before", "after", "--output", "pages/listen.html"]) == 0
    assert "12 pairs: pages/listen.html" in capsys.readouterr().out
    page = Path("pages/listen.html").read_text()
    found = pairs(page)
    assert {(p["generator"], p["item"]) for p in found} == {
        (("musicgen", "audioldm")[n % 2], f"{n} & #") for n in range(12)
    }
    for pair in found:
        systems = pair["systems"].split()
        for system, source, volume in zip(systems, pair["sources"], pair["volumes"], strict=True):
            assert source == f"../{system}/{pair['generator']}/{pair['item']}.wav"
            assert (Path("pages") / source).is_file()
            assert volume == pytest.approx(0.25 if system == "before" else 1.0, abs=1e-3)
    first = [pair["systems"] for pair in found]
    assert {"before after", "after before"} == set(first)
    shown = re.sub(r"<(script|style)>.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search("before|after|musicgen|audioldm", shown)  # nothing that is seen gives it away
    for number, pair in enumerate(found, 1):
        for side in "01":
            assert [value for name, value in pair["radios"] if name == f"p{number}-{side}"] == list("12345")
        assert [value for name, value in pair["radios"] if name == f"p{number}-better"] == ["0", "1", ""]
    for column in COLUMNS:
        assert f'"{column}"' in page
    assert "http" not in page  # it needs nothing from elsewhere


def test_the_order_is_the_seed_s(folders):
    pages = []
    for seed in ("0", "0", "1"):
        assert main(["before", "after", "--output", "page.html", "--seed", seed]) == 0
        pages.append(Path("page.html").read_text())
    assert pages[0] == pages[1] != pages[2]
    assert [p["item"] for p in pairs(pages[0])] != [p["item"] for p in pairs(pages[2])]


def test_what_has_no_other_version_is_named(folders, capsys):
    Path("after/musicgen/0 & #.wav").unlink()
    assert main(["before", "after", "--output", "page.html"]) == 1
    printed = capsys.readouterr()
    assert "11 pairs" in printed.out
    assert "listen.py: left out: musicgen/0 & #: in one of the folders only" in printed.err


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("nowhere", "after", "no folder nowhere"),
        ("before", "after/musicgen", "no recording of the same name"),
        ("before/musicgen", "after/musicgen", "is in no sub-folder"),
        ("before", "broken", "broken/musicgen/0 & #.wav: "),
    ],
)
def test_what_a_user_did_wrong_is_one_line(folders, capsys, before, after, message):
    Path("broken/musicgen").mkdir(parents=True)
    Path("broken/musicgen/0 & #.wav").write_text("no audio")
    assert main([before, after, "--output", "page.html"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("listen.py: ")
    assert message in line
    assert not Path("page.html").exists()


def test_silence_plays_as_it_is(folders):
    soundfile.write("after/musicgen/0 & #.wav", np.zeros(100), 48_000)
    assert main(["before", "after", "--output", "page.html"]) == 0
    (silent,) = (p for p in pairs(Path("page.html").read_text()) if p["item"] == "0 & #")
    assert silent["volumes"] == [1.0, 1.0]
