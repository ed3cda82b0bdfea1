"""A page that asks people what they hear before and after a system: python experiments/listen.py --help"""

import argparse
import json
import os
import random
import sys
from pathlib import Path

import numpy as np

from experiments.page import document, replace, text
from experiments.ratings import COLUMNS, SCALE, SYSTEMS
from signals.audio_files import AudioFile, Unreadable
from signals.errors import UserError
from signals.names import html_url, one_line

STRETCH = 2**20  # samples that are in memory at once
NEITHER = "no clear difference"
INTRODUCTION = """<h1>Listening test</h1>
<p>Each pair is one recording in two versions. Hear both, rate the sound of each, and say which sounds better.
The order is random. At the end, save your ratings and hand in the file.</p>
<p><label>your name, or a number <input id="listener"></label></p>"""
# Versions play equally loud: the louder one is turned down.
SCRIPT = """
const pairs = [...document.querySelectorAll(".pair")], told = document.getElementById("told");
for (const player of document.querySelectorAll("audio")) player.volume = player.dataset.volume;
const chosen = name => document.querySelector(`input[name="${name}"]:checked`)?.value;
function answers(listener, {id, dataset}) {
  const ratings = [0, 1].map(side => chosen(`${id}-${side}`)), better = chosen(`${id}-better`);
  if ([...ratings, better].includes(undefined)) return [];
  return dataset.systems.split(" ").map((system, side) => [
    listener, dataset.generator, dataset.item, system, ratings[side], better === String(side) ? 1 : 0]);
}
document.getElementById("save").onclick = () => {
  const listener = document.getElementById("listener").value.trim();
  if (!listener) return told.textContent = "Your name or a number is needed first, at the top.";
  const rows = pairs.flatMap(pair => answers(listener, pair)), open = pairs.length - rows.length / 2;
  const quoted = cell => `"${String(cell).replaceAll('"', '""')}"`;
  const csv = [COLUMNS, ...rows].map(row => row.map(quoted).join(",") + "\\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv], {type: "text/csv"}));
  link.download = "ratings.csv";
  link.click();
  told.textContent = open ? `Saved; ${open} pairs are not finished and not in it.` : "Saved, all of it.";
};
"""


def radio(name: str, choices: dict[str, str]) -> str:
    """One choice of several. choices: what is shown, by its value."""
    return " ".join(
        f'<label><input type="radio" name="{name}" value="{value}"> {text(words)}</label>'
        for value, words in choices.items()
    )


def loudness(path: Path) -> float:
    """Root mean square, over all channels. Raises UserError where the file cannot be read."""
    try:
        with AudioFile(path) as file:
            power = sum(float(np.square(wave, dtype=np.float64).sum()) for wave in file.stretches(STRETCH))
            return (power / (file.frames * file.channels)) ** 0.5
    except Unreadable as why:
        raise UserError(f"{one_line(path)}: {why}") from None


def pair(place: str, id_: str, versions: dict[str, Path], page: Path) -> str:
    """Two players with their scales. id_: `generator/item`. versions: as they are shown."""
    levels = {system: loudness(path) for system, path in versions.items()}
    players = ""
    for side, (system, path) in enumerate(versions.items()):
        volume = min(levels.values()) / levels[system] if min(levels.values()) else 1.0
        source = html_url(Path(os.path.relpath(path, page.parent)).as_posix())
        players += (
            f'<figure><figcaption>{"AB"[side]}</figcaption><audio controls preload="none" '
            f'data-volume="{volume:.4f}" src="{source}"></audio>'
            + radio(f"{place}-{side}", {str(n): f"{n} {word}" for n, word in enumerate(SCALE, 1)})
            + "</figure>"
        )
    better = radio(f"{place}-better", {"0": "A", "1": "B", "": NEITHER})
    generator, _, item = id_.partition("/")
    return (
        f'<div class="pair" id="{place}" data-generator="{text(generator)}" data-item="{text(item)}" '
        f'data-systems="{" ".join(versions)}"><h3>{place.removeprefix("p")}</h3><div class="audio">{players}'
        f"</div><p>Which sounds better? {better}</p></div>"
    )


def write_listening_page(before: Path, after: Path, page: Path, seed: int) -> tuple[int, list[str]]:
    """Pairs of the page, and a line for each recording that is left out.

    Raises UserError where there is no pair, or a recording is in no generator's folder.
    """
    from experiments.evaluate import by_name

    left_out: list[str] = []
    folders = {"before": by_name(before, left_out.append), "after": by_name(after, left_out.append)}
    shared = sorted(set.intersection(*map(set, folders.values())))
    alone = sorted(set.union(*map(set, folders.values())) - set(shared))
    left_out += [f"{name}: in one of the folders only" for name in alone]
    if not shared:
        raise UserError(f"{before} and {after} have no recording of the same name.")
    if outside := [id_ for id_ in shared if "/" not in id_]:
        raise UserError(f"{outside[0]} is in no sub-folder: each needs one, of its generator's name.")
    rng, pairs = random.Random(seed), []
    rng.shuffle(shared)
    for number, id_ in enumerate(shared, 1):
        order = rng.sample(SYSTEMS, len(SYSTEMS))
        versions = {system: folders[system][id_][0] for system in order}
        pairs.append(pair(f"p{number}", id_, versions, page))
    end = '<p><button id="save">save ratings.csv</button> <span id="told" role="status"></span></p>'
    script = f"<script>const COLUMNS = {json.dumps(COLUMNS)};{SCRIPT}</script>"
    page.parent.mkdir(parents=True, exist_ok=True)
    replace(page, document("Listening test", INTRODUCTION, *pairs, end, script))
    return len(pairs), left_out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="A page on which people rate recordings before and after a system, blindly."
    )
    parser.add_argument("before", help="folder: <generator>/<item>, as generate.py writes it")
    parser.add_argument("after", help="folder: the same, as enhance.py writes it")
    parser.add_argument("--output", required=True, metavar="PAGE.html", help="plays the files where they are")
    parser.add_argument("--seed", type=int, default=0, help="of the order: another one for each listener")
    args = parser.parse_args(argv)
    try:
        page = Path(args.output)
        count, left_out = write_listening_page(Path(args.before), Path(args.after), page, args.seed)
    except (UserError, OSError) as error:
        print(one_line(f"listen.py: {error}"), file=sys.stderr)
        return 2
    for line in left_out:
        print(one_line(f"listen.py: left out: {line}"), file=sys.stderr)
    print(f"{count} pairs: {one_line(args.output)}; its ratings.csv is for figures.py --ratings")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
