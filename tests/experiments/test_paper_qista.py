"""The paper qista by its commands: tables, released weights, rates of test sets, what a method measures."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments import compare, enhance, run
from experiments.configuration import configure, load_paper, load_table
from experiments.verification import verify
from lightning_modules.qista import M, N
from signals import versions

pytestmark = pytest.mark.slow  # whole runs of a paper's tables

VERSIONS = [1, versions.DEGRADATIONS, versions.METRICS]
WEIGHTS = {"n_official": "n.npz", "m_official": "m.npz"}
RELEASED = [f"released.{name}={file}" for name, file in WEIGHTS.items()]


@pytest.fixture
def command(tiny_corpus, workplace, tmp_path_factory):
    stores = tmp_path_factory.getbasetemp() / "qista"

    def done(*arguments: str) -> int:
        small = ["data.test_files=1", "data.workers=1", "trainer.threads=1"]
        small += ["protocols.published.metrics.PESQ=snr", "protocols.published.metrics.STOI=snr"]  # slow ones
        where = [f"data.root={tiny_corpus}", f"data.folder={stores}"]
        return run.main(["--paper", "qista", "--preset", "smoke", *small, *where, *arguments])

    return done


@pytest.fixture
def weights(workplace) -> dict[str, dict[str, np.ndarray]]:
    """Files of drawn weights by the names of the released ones, with what the checkpoints also hold."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape)).astype(np.float32)

    n = {"FC_100": drawn(256, 128), "FC_101": drawn(128, 256), "beta2_power": drawn()}
    widths = [(1, 32), *[(32, 32)] * 6, (32, 1)]
    for t in range(9):
        n |= {f"conv_{t}/{name}": drawn() for name in ("Variable", "Variable_1", "Variable_2")}
        n |= {f"conv_{t}/Weights_{i}": drawn(2, 2, *width) for i, width in enumerate(widths)}
        n |= {f"conv_{t}/biases_{i}": drawn(width[1]) for i, width in enumerate(widths)}
    m = {"FC_101": drawn(128, 256), "FC_101/Adam": drawn(128, 256)}
    m |= {f"conv_{t}/{name}": drawn() for t in range(20) for name in ("Variable", "Variable_1")}
    np.savez("n.npz", **n)
    np.savez("m.npz", **m)
    return {"n": n, "m": m}


def records(kind: str) -> list[dict]:
    found = (json.loads(path.read_text()) for path in sorted(Path("runs/qista").glob("*/record.json")))
    return [record for record in found if record["kind"] == kind]


def test_parameters_are_those_of_table_1(command, capsys):
    assert command("--table", "parameters") == 0
    printed = capsys.readouterr().out
    assert " 289,051 " in printed
    assert " 32,808 " in printed


def test_the_table_is_filled_without_the_released_weights(command, capsys):
    assert command() == 0
    printed = capsys.readouterr().out
    assert "QISTA-Net-Audio, official weights: left out" in printed
    assert "set released.m_official" in printed
    assert "MfNet: MfNet-like, ours" in printed
    standings = {r["system"]: (r["stand_in"], set(r["measured"])) for r in records("score")}
    assert standings["QISTA-Net-Audio"] == (False, {"SNR_authors", "magnitude_SNR"})
    assert standings["QISTA-Net-n, true magnitude"] == (False, {"SNR_authors"})
    assert standings["MfNet+C"] == (True, set())
    assert {r["run"] for r in records("run")} == {"n", "m", "mel", "mfnet", "mfnet_p", "mfnet_a", "mfnet_c"}
    assert (Path("runs/qista/figures/figure2.png")).is_file()
    cutoffs = {r["identity"]["data"]["degradation"]["cutoff"] for r in records("run")}
    assert cutoffs == {12_000}
    assert verify(Path("runs"), lambda line: None) == 0
    assert compare.main(["--paper", "qista", "--table", "table2", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[11] for line in lines if ",MfNet," in line] == ["stand-in", "stand-in"]


def test_released_weights_become_a_run(command, weights, capsys):
    row = "QISTA-Net-Audio, official weights"
    assert command("--row", row, *RELEASED) == 0
    assert "run n_official" in capsys.readouterr().out
    runs = {record["run"]: record for record in records("run")}
    assert set(runs) == {"n_official", "m_official"}
    assert runs["n_official"]["parameters"] == 289_051
    (scored,) = records("score")
    assert set(scored["runs"].values()) == {record["id"] for record in runs.values()}
    told: list[str] = []
    assert verify(Path("runs"), told.append) == 0
    assert any("but for SNR_authors, magnitude_SNR, which no waveform shows" in line for line in told)
    capsys.readouterr()
    Path("elsewhere").mkdir()
    for file in WEIGHTS.values():
        shutil.copy(file, "elsewhere")
    assert command("--row", row, *(text.replace("=", "=elsewhere/") for text in RELEASED)) == 0
    assert "1 cells were scored before" in capsys.readouterr().out  # a file is known by what it holds
    assert len(records("score")) == 1
    assert not [change for change in scored["changes"] if "released" in change]
    soundfile.write("low.wav", 0.1 * np.random.default_rng(0).standard_normal(9000), 24_000)
    assert enhance.main(["--checkpoint", "runs", "--row", row, "low.wav", "--output", "out"]) == 0
    assert soundfile.info("out/low.wav").frames == 18_000


def test_released_weights_are_asked_for_and_checked(command, weights, capsys):
    row = ("--table", "official", "--row", "QISTA-Net-Audio, official weights")
    assert command(*row) == 2
    assert "set released." in capsys.readouterr().err
    assert command(*row, *RELEASED[:1], "released.m_official=gone.npz") == 2
    assert "released.m_official=gone.npz: no such file" in capsys.readouterr().err
    assert command(*row, "released.n_official=m.npz", RELEASED[1]) == 1
    assert "m.npz is not what was asked for: it lacks" in capsys.readouterr().err
    weights["m"]["FC_101"] = weights["m"]["FC_101"][:64]
    np.savez("m.npz", **weights["m"])
    assert command(*row, *RELEASED) == 1
    assert "m.npz does not fit m_official: size mismatch for B" in capsys.readouterr().err


def test_weights_are_converted_name_by_name(weights):
    n, m = N.converted(Path("n.npz")), M.converted(Path("m.npz"))
    np.testing.assert_array_equal(n["A"], weights["n"]["FC_100"].T)
    np.testing.assert_array_equal(n["B"], weights["n"]["FC_101"].T)
    kernel = weights["n"]["conv_3/Weights_0"]  # height, width, in, out
    assert n["phases.3.C.0"][5, 0, 1, 0] == kernel[1, 0, 0, 5]
    assert n["phases.8.alpha"] == weights["n"]["conv_8/Variable_2"]
    assert m["lambda_"][13] == weights["m"]["conv_13/Variable_1"]
    assert len(n) == 2 + 9 * 11
    assert set(m) == {"B", "beta", "lambda_"}


def test_a_test_set_has_its_own_rate(command):
    assert command("--table", "official", "--row", "Cubic spline") == 0
    rates = {record["dataset"]: record["identity"]["rate"] for record in records("score")}
    assert rates == {"vctk_48k": 48_000, "voicebank_16k": 16_000}
    rules = {record["dataset"]: record["identity"]["rule"]["resampling"] for record in records("score")}
    assert rules == {"vctk_48k": "none", "voicebank_16k": "soxr"}
    assert not any(record["exact"] for record in records("score"))  # no reproduction of the paper's table
    assert command("--row", "Cubic spline") == 0
    assert [r["exact"] for r in records("score") if r["dataset"] == "voicebank"] == [True]


def test_no_number_of_another_formula_is_a_reproduction():
    table = load_table("qista", "table2")
    row = table.row("QISTA-Net-Audio")
    assert row.corrected == ("SNR", "PESQ", "STOI")
    identity = {"method": "qista", "rule": {"metrics": {"SNR": "snr"}}, "versions": VERSIONS}
    record = {
        "kind": "score",
        "paper": "qista",
        "system": row.system,
        **{"dataset": "voicebank", "scale": 2, "cutoff_hz": None, "loss": None},
        **{"preset": "full", "protocol": "published", "seed": 0, "changes": [], "exact": True},
        **{"runs": {}, "stand_in": False, "expected": 1, "files_used": 1, "not_finite": {}},
        **{"mean": {"SNR": 31.0}, "std": {"SNR": 1.0}, "family": "a", "id": "a", "identity": identity},
        "provenance": {"finished": "2026"},
    }
    column = table.columns[0]
    assert compare.standing_among(record, [record], "SNR") == "reproduction"
    line = compare.cell(table, row, column, [record])
    assert (line["standing"], line["measured"], line["reproduced"]) == ("partial", "31", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "official", "datasets.voicebank_16k.protocol=null"], "is a section"),
        (["datasets.voicebank=null"], "all test sets of qista table2 are null"),
        (["n.phases=0"], "a whole number from 1 on"),
        (["n.channels=0"], "there is at least one"),
        (["mfnet.kernel=8"], "an odd number, around a sample"),
        (["mel.stride=0"], "a whole number from 1 on"),
        (["--corpus", "corpus.yaml"], "rate is the paper's to say"),
        (
            ["--table", "official", "--method", "king_audiounet", "data.rate=16000"],
            "is trained at 16000 Hz, a test set of this table is at 48000 Hz",
        ),
    ],
)
def test_what_cannot_be_is_one_line(command, capsys, arguments, message):
    Path("corpus.yaml").write_text("path: speech\nrate: 16000\n")
    assert command(*arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("run.py: ")
    assert message in line


def test_a_metric_that_is_not_installed_is_known_before_training(tiny_corpus, workplace, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    small = ["--preset", "smoke", "--row", "QISTA-Net-Audio", f"data.root={tiny_corpus}"]
    assert run.main(["--paper", "qista", *small]) == 2
    assert 'pesq is not installed: pip install -e ".[speech]"' in capsys.readouterr().err
    assert not list(workplace.rglob("record.json"))


def test_recordings_are_not_resampled(command, capsys):
    assert command("--row", "Cubic spline", "data.rate=16000") == 2
    assert "at 48,000 Hz, not 16,000, and is not to be resampled: set data.rate" in capsys.readouterr().err


def test_variants():
    """The code's and the paper's: q, where the auxiliary loss is, and m's loss."""
    for variant, q, auxiliary, m in (("code", 0.5, "features", "half_sum"), ("text", 0.05, "image", "mse")):
        runs = configure("qista", "full", [f"method.variant={variant}"])["runs"]
        assert (runs["n"]["options"]["q"], runs["n"]["options"]["auxiliary"]) == (q, auxiliary)
        assert (runs["m"]["options"]["q"], runs["m"]["weights"][m]) == (q, 1.0)
        assert runs["n_official"]["options"]["q"] == 0.5  # whatever is trained
    assert load_paper("qista")["config"]["runs"]["n"]["data"]["pool"] == 133_096


def test_the_ablation_prints_what_was_measured(command, capsys):
    assert command("--table", "ablation_4_4") == 0
    table = load_table("qista", "ablation_4_4")
    assert [row.published["magnitude_SNR"] for row in table.rows[:2]] == [31.61, 33.98]
    means = {record["system"]: record["mean"]["magnitude_SNR"] for record in records("score")}
    assert set(means) == {"QISTA-Net-n", "QISTA-Net-m"}
    printed = capsys.readouterr().out
    for value in means.values():
        assert f" / {value:.2f}" in printed
