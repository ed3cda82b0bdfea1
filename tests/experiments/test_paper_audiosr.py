"""The paper audiosr by its commands: samplers and their time, filters heard in training and not."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch

from datamodules.degradations import degradation
from experiments import compare, run
from experiments.configuration import load_table
from lightning_modules.audiosr.settings import Settings
from signals.types import Signal

pytestmark = pytest.mark.slow  # whole runs of a paper's tables

SAMPLERS = {
    "DDIM, as released": ("ddim", "leading", 1.0),
    "DDIM from the zero-SNR step": ("ddim", "trailing", 0.0),
    "DPM-Solver++": ("dpm", "trailing", 0.0),
}


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory):
    """Runs and stores are those of all tests here: what one has trained, the next one has."""
    shared = tmp_path_factory.getbasetemp() / "audiosr"
    (workplace / "runs").symlink_to(shared / "runs")
    (shared / "runs").mkdir(parents=True, exist_ok=True)

    def done(*arguments: str) -> int:
        small = ["data.test_files=1", "pictures=1", "data.workers=1", "trainer.threads=1"]
        where = [f"data.root={tiny_corpus}", f"data.folder={shared / 'data'}"]
        return run.main(["--paper", "audiosr", "--preset", "smoke", *small, *where, *arguments])

    return done


def records(kind: str, systems: list[str] | None = None) -> list[dict]:
    found = (json.loads(path.read_text()) for path in Path("runs/audiosr").glob("*/record.json"))
    return [r for r in found if r["kind"] == kind and (systems is None or r["system"] in systems)]


def only(systems: list[str]) -> list[str]:
    return [word for system in systems for word in ("--row", system)]


def printed(capsys, table: str) -> list[dict]:
    capsys.readouterr()
    assert compare.main(["--paper", "audiosr", "--table", table, "--format", "csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_every_sampler_stands_with_every_number_of_steps():
    rows = [row for row in load_table("audiosr", "steps").rows if row.method == "audiosr"]
    found = {}
    for row in rows:
        name, _, steps = row.system.rpartition(", ")
        chosen = Settings.of(**row.settings)
        assert SAMPLERS[name] == (chosen.sampler, chosen.spacing, chosen.eta)
        assert steps == f"{chosen.steps} steps"
        found.setdefault(name, []).append(chosen.steps)
    assert found == {name: [5, 10, 20, 50, 100] for name in SAMPLERS}


def test_samplers_share_a_model_and_have_their_time(command, capsys):
    systems = [*(f"{name}, 5 steps" for name in SAMPLERS), "Unprocessed"]
    arguments = ("--table", "steps", "datasets.esc50=null", *only(systems))
    assert command(*arguments) == 0
    scores = {record["system"]: record for record in records("score", systems)}
    assert scores.keys() == set(systems)
    made = [scores[system] for system in systems[:-1]]
    assert made[0]["runs"].keys() == {"vae", "ldm", "vocoder"}
    assert made[0]["runs"] == made[1]["runs"] == made[2]["runs"]
    assert len({record["mean"]["LSD"] for record in made}) == 3
    lines = {(line["system"], line["metric"]): line for line in printed(capsys, "steps")}
    for system, record in scores.items():
        line = lines[system, "real_time_factor"]
        assert math.isclose(float(line["measured"]), record["real_time_factor"], rel_tol=1e-3)
        assert (line["standing"], line["std"], line["run"]) == ("demo", "", record["id"])
        assert float(line["measured"]) > 0
        assert lines[system, "LSD"]["std"]
        assert "real_time_factor" not in json.dumps([record["identity"], record["mean"], record["files"]])
        assert run.main(["--verify", f"runs/audiosr/{record['id']}"]) == 0
    capsys.readouterr()
    assert command(*arguments) == 0
    assert "4 cells were scored before" in capsys.readouterr().out


def test_a_slow_method_is_not_an_untrained_one(command):
    system = "DPM-Solver++, 5 steps"
    assert command("--table", "steps", "datasets.esc50=null", *only([system, "Unprocessed"])) == 0
    found = compare.scored(Path("runs"), "audiosr")
    slow = next(record for record in found if record["system"] == system)
    slow["mean"] |= {"LSD": 1000.0, compare.TIME: 1000.0}
    assert compare.standing_among(slow, found, "LSD") == "untrained"
    assert compare.standing_among(slow, found, compare.TIME) == "demo"


def test_the_filters_of_the_rows_cut_at_every_cutoff():
    table = load_table("audiosr", "mismatch")
    wave = torch.randn(1, 1, 24_000, generator=torch.Generator().manual_seed(0))
    rules = {}
    for row in table.rows:
        system, _, name = row.system.partition(", ")
        unfiltered = name.endswith(", no pre-filter")
        assert (row.settings.get("prefilter_passes") == 0) == unfiltered
        name = name.removesuffix(", no pre-filter")
        assert rules.setdefault(name, row.protocol) == row.protocol
        for column in table.columns:
            filtered = degradation(**row.protocol["degradation"], cutoff=column.cutoff_hz)
            low, edge = filtered(Signal.of(wave, 48_000), torch.tensor([1]))
            assert float(edge) == column.cutoff_hz
            power = torch.fft.rfft(low.wave[0, 0]).abs().square()
            hertz = torch.linspace(0, low.rate / 2, len(power))
            share = power[hertz > 1.5 * column.cutoff_hz].sum() / power.sum()
            assert float(share) < 0.01, (system, column.key)
    assert len(rules) == 4
    assert len({json.dumps(rule) for rule in rules.values()}) == 4


def test_one_model_is_tested_under_every_filter_and_judged_by_its_own_input(command, capsys):
    systems = ["AudioSR, polyphase", "AudioSR, causal Butterworth", "AudioSR-narrow, polyphase"]
    systems += ["Unprocessed, polyphase", "Unprocessed, causal Butterworth"]
    assert command("--table", "mismatch", *only(systems), "pictures=0") == 0
    scores = records("score", systems)
    cutoffs = {2000, 3000, 4000, 6000, 8000, 12000, 16000}
    assert {(r["system"], r["cutoff_hz"]) for r in scores} == {(s, c) for s in systems for c in cutoffs}
    used = {r["system"]: r["runs"].get("ldm") for r in scores}
    assert used[systems[0]] == used[systems[1]] != used[systems[2]]
    drawn = {r["id"]: r["identity"]["data"]["degradation"] for r in records("run")}
    assert drawn[used[systems[0]]]["cutoff"] == [2000, 16000]
    narrow = drawn[used[systems[2]]]
    assert (narrow["kinds"], narrow["cutoff"], narrow["order"]) == (["chebyshev"], [4000, 4000], [8, 8])
    lines = [line for line in printed(capsys, "mismatch") if line["run"]]
    assert len(lines) == 5 * 7
    by_filter = {(r["system"], r["cutoff_hz"]): r["mean"]["LSD"] for r in scores}
    for line in lines:
        system, cutoff = line["system"], int(line["cutoff_hz"])
        worse = by_filter[system, cutoff] > by_filter[f"Unprocessed, {system.partition(', ')[2]}", cutoff]
        assert line["standing"] == ("untrained" if worse else "demo")
