"""The paper audioedsr by its commands: tables, runs by scale and loss, protocols that train, counts."""

import json
import re
from pathlib import Path

import pytest

from experiments import compare, run
from experiments.configuration import load_table

pytestmark = pytest.mark.slow  # whole runs of a paper's tables


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory):
    stores = tmp_path_factory.getbasetemp() / "audioedsr"

    def done(*arguments: str) -> int:
        small = ["data.test_files=1", "pictures=0", "data.workers=1", "trainer.threads=1"]
        where = [f"data.root={tiny_corpus}", f"data.folder={stores}"]
        return run.main(["--paper", "audioedsr", "--preset", "smoke", *small, *where, *arguments])

    return done


def records(kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in Path("runs/audioedsr").glob("*/record.json"))
    return [record for record in found if record["kind"] == kind]


def test_parameters_are_counted_beside_the_published(command, capsys):
    assert command("--table", "table4") == 0
    printed = capsys.readouterr().out
    for count in (9594113, 9692673, 56411394):
        assert f"{count} / {count:,} " in printed
    assert compare.main(["--paper", "audioedsr", "--table", "table4", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].split(",")[8:12] == ["9594113", "9594113", "", "reproduction"]
    assert not records("run")


def test_a_row_has_a_run_for_each_scale(command):
    assert command("--row", "AudioEDSR", "--row", "Linear equaliser") == 0
    assert {record["run"] for record in records("run")} == {
        *("edsr_x2", "edsr_x4", "equaliser_x2", "equaliser_x3", "equaliser_x4")
    }
    tested = {(record["system"], record["scale"]) for record in records("score")}
    assert tested == {("AudioEDSR", scale) for scale in (2, 4)} | {
        ("Linear equaliser", scale) for scale in (2, 3, 4)
    }  # AudioEDSR at 3x is not applicable
    for record in records("score"):
        (used,) = record["runs"].values()
        (of,) = [record["run"] for record in records("run") if record["id"] == used]
        assert of.endswith(f"x{record['scale']}")


def test_a_loss_has_its_run_and_the_table_its_split(command):
    assert load_table("audioedsr", "table2").split == "validation"
    assert command("--table", "table2", "--row", "AudioUNet") == 0
    weights = {record["run"]: record["identity"]["weights"] for record in records("run")}
    assert weights == {"unet_x4": {"l1": 1.0, "l2": 0.0}, "unet_x4_l2": {"l1": 0.0, "l2": 1.0}}
    assert {record["identity"]["split"] for record in records("score")} == {"validation"}


def test_a_protocol_says_what_is_trained_on(command):
    assert command("--row", "Linear equaliser") == 0
    assert command("--row", "Linear equaliser", "--protocol", "aligned") == 0
    data = [record["identity"]["data"] for record in records("run") if record["run"] == "equaliser_x2"]
    assert sorted((one["resampling"], one["degradation"]["causal"]) for one in data) == [
        ("butterworth", True),
        ("soxr", False),
    ]
    rules = {record["protocol"]: record["identity"]["rule"] for record in records("score")}
    assert rules["published"]["metrics"]["LSD"] == "lsd_king"
    assert rules["aligned"]["metrics"]["LSD"] == "lsd_eq2"
    assert not any("training" in rule for rule in rules.values())


def test_rows_of_one_table_train_on_their_own_alignment(command):
    both = ("Linear equaliser, causal", "Linear equaliser, zero-phase")
    assert command("--table", "alignment", *(word for row in both for word in ("--row", row))) == 0
    causal = {record["id"]: record["identity"]["data"]["degradation"]["causal"] for record in records("run")}
    assert sorted(causal.values()) == [False, False, True, True]
    for record in records("score"):
        (used,) = record["runs"].values()
        assert causal[used] == (record["system"] == both[0])
        assert causal[used] == record["identity"]["rule"]["degradation"]["causal"]


def test_a_method_of_ones_own_learns_each_scale(command, workplace):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[1]
    (workplace / "mine.py").write_text(code)
    assert command("--method", "mine.py:Net") == 0
    cutoffs = {r["id"]: r["identity"]["data"]["degradation"]["cutoff"] for r in records("run")}
    assert sorted(cutoffs.values()) == [1500, 2000, 3000]
    assert {r["scale"]: cutoffs[r["runs"]["itself"]] for r in records("score")} == {2: 3000, 3: 2000, 4: 1500}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "AudioEDSR", "runs.edsr_x2.options.scale=3"], "powers of two"),
        (["--row", "Linear equaliser", "runs.equaliser_x2.options.taps=96"], "an odd number"),
        (["--row", "AudioUNet", "unet.clamp=true"], "clamp"),
        (["split=everybody", "--row", "Spline"], "split"),
        (
            ["--row", "AudioUNetGAN", "trainer.precision=16-mixed"],
            "AudioUNetGAN cannot be trained in 16-mixed",
        ),
    ],
)
def test_what_cannot_be_is_one_line(command, capsys, arguments, message):
    assert command(*arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("run.py: ")
    assert message in line
