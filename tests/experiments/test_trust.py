"""A stranger's records, folders and sweeps: the files that they name are not executed."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import yaml

import lightning_modules
from experiments import compare, enhance, evaluate, figures, generate, grids, listen, run, sweep
from experiments.records import identity_hash
from lightning_modules import find_method, find_stage, in_trusted_file, trust
from signals.errors import UserError

SOURCE = """
from pathlib import Path
Path({mark!r}).touch()
from lightning_modules.single_stage import SingleStage

class Net(SingleStage):
    def resolve(self, low, cutoff, seeds, reference):
        return low.wave
"""


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch):
    monkeypatch.setattr(lightning_modules, "_named", set())


class Stranger:
    """A folder of runs, of a method that leaves a mark where it is executed."""

    def __init__(self, place: Path, absolute: bool):
        self.mark, self.runs, file = place / "executed", place / "runs", place / "evil.py"
        file.write_text(SOURCE.format(mark=str(self.mark)))
        self.method = f"{file if absolute else file.name}:Net"
        source = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        shared = {"source": source, "weights": {}, "optimizer": {}, "options": {}, "uses": {}, "seed": 0}
        self.run = self.record("run", shared | {"stage": self.method, "data": {"rate": 48000}}, run="net")
        identity = {
            "method": self.method,
            "source": source,
            "rate": 48000,
            "parts": {"itself": self.run.name},
            "settings": {},
            "task": {"dataset": "vctk", "scale": None, "cutoff_hz": 4000, "loss": None},
            "rule": {"metrics": {"LSD": "lsd_nuwave"}, "bits": None, "degradation": {"name": self.method}},
            "seed": 0,
        }
        task = identity["task"] | {"system": "Net", "preset": "demo", "protocol": "published", "seed": 0}
        scores = {"mean": {"LSD": 1.0}, "std": {}, "median": {}, "not_finite": {}, "files_used": 1}
        scores |= {"files": {"a/1": {"LSD": 1.0, "group": "a"}}, "average": "file", "expected": 1}
        state = {"runs": {"itself": self.run.name}, "stand_in": False, "exact": True, "changes": []}
        self.score = self.record("score", identity, **task, **scores, **state, family="f", interval={})
        (self.score / "config.yaml").write_text(f"pictures: 1\nmethod: '{self.method}'\n")
        for kind in ("estimate", "reference", "input"):
            (self.score / "recordings" / kind).mkdir(parents=True)
            soundfile.write(self.score / "recordings" / kind / "a_1.wav", [0.1] * 9000, 48000)
        other = self.runs / "audiosr" / "other"
        shutil.copytree(self.score, other)
        sweep_ = {"program": grids.PROGRAM, "method": "grid", "command": grids.COMMAND}
        values = {"paper": "audiosr", "method": self.method, "preset": "smoke"}
        sweep_["parameters"] = {key: {"value": value} for key, value in values.items()}
        (place / "sweep.yaml").write_text(yaml.safe_dump(sweep_))
        (place / "corpus.yaml").write_text(f"corpus: '{self.method}'\npath: .\n")

    def record(self, kind: str, identity: dict, **values) -> Path:
        folder = self.runs / "audiosr" / identity_hash(identity)
        folder.mkdir(parents=True)
        values |= {"kind": kind, "paper": "audiosr", "id": folder.name, "identity": identity}
        values |= {"preset": "demo", "provenance": {"finished": "2026-01-01", "machine": "x", "commit": "c"}}
        (folder / "record.json").write_text(json.dumps(values))
        return folder


@pytest.fixture(params=["absolute", "relative"])
def stranger(request, workplace) -> Stranger:
    return Stranger(workplace, request.param == "absolute")


RUN = ["--paper", "audiosr", "--preset", "smoke", "--dry-run", "data.root={corpora}", "data.workers=1"]
COMMANDS = {
    "enhance": (enhance.main, ["--checkpoint", "runs", "--row", "Net", "--output", "out", "{recordings}"]),
    "enhance_run": (enhance.main, ["--checkpoint", "{run}", "--output", "out", "{recordings}"]),
    "enhance_score": (enhance.main, ["--checkpoint", "{score}", "--output", "out", "{recordings}"]),
    "compare": (compare.main, ["--paper", "audiosr"]),
    "compare_html": (compare.main, ["--paper", "audiosr", "--format", "html"]),
    "compare_two": (compare.main, ["{score}", "runs/audiosr/other"]),
    "verify": (run.main, ["--verify", "runs"]),
    "figures": (figures.main, ["--paper", "audiosr", "--figure", "figure3"]),
    "run": (run.main, [*RUN, "--row", "Spline"]),
    "run_stage": (run.main, [*RUN, "--row", "AudioSR", "runs.ldm.stage={method}"]),
    "run_corpus": (run.main, [*RUN, "--row", "Spline", "--corpus", "corpus.yaml"]),
    "sweep": (sweep.main, ["sweep.yaml", "--dry-run"]),
    "sweep_here": (sweep.main, ["sweep.yaml", "--local"]),
    "evaluate": (evaluate.main, ["--reference", "{recordings}", "--estimate", "{recordings}"]),
    "evaluate_protocol": (
        evaluate.main,
        ["--reference", "{recordings}", "--estimate", "{recordings}", "--protocol", "{method}"],
    ),
    "listen": (listen.main, ["{score}/recordings", "{score}/recordings", "--output", "page.html"]),
    "generate": (generate.main, ["--output", "{score}/recordings", "--list"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_executes_what_records_and_files_name(command, stranger, tiny_corpus, capsys):
    main, arguments = COMMANDS[command]
    places = {"recordings": stranger.score / "recordings" / "reference", "run": stranger.run}
    places |= {"score": stranger.score, "method": stranger.method, "corpora": tiny_corpus}
    try:
        code = main([argument.format(**places) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert not stranger.mark.exists()
    told = capsys.readouterr()
    if command.startswith(("enhance", "sweep", "run_")):
        assert code == 2
    if command.startswith(("enhance", "sweep")):
        assert "would be executed: if you trust it, add" in told.err


def test_who_names_the_file_trusts_it(stranger, capsys):
    arguments = ["--checkpoint", str(stranger.score), "--output", "out", str(stranger.score / "recordings")]
    enhance.main([*arguments, "--method", "evil.py:Net"])
    assert stranger.mark.exists()
    assert "weights.safetensors is damaged or missing" in capsys.readouterr().err


def test_a_file_of_that_name_must_be_what_the_record_says(stranger, capsys):
    Path("evil.py").write_text(Path("evil.py").read_text() + "\n")
    arguments = ["--checkpoint", str(stranger.score), "--output", "out", str(stranger.score / "recordings")]
    assert enhance.main([*arguments, "--method", "evil.py:Net"]) == 2
    assert not stranger.mark.exists()
    assert "was changed since" in capsys.readouterr().err


def test_only_the_file_that_is_named_is_executed(stranger):
    Path("mine.py").write_text("class Net: pass")
    trust("mine.py:Net")
    assert find_method("mine.py:Net").__name__ == "Net"
    for find in (find_method, find_stage):
        with pytest.raises(UserError, match="only a file that you name by --method is"):
            find(stranger.method)
    assert not stranger.mark.exists()


def test_a_method_of_ours_needs_no_trust(tmp_path):
    assert in_trusted_file("audiosr", None, tmp_path) == "audiosr"


@pytest.mark.parametrize("file", ["evil.so", "evil.pyc", "evil.txt"])
def test_only_python_text_is_a_method(file, workplace):
    Path(file).write_text("")
    trust(f"{file}:Net")
    with pytest.raises(UserError, match=f"no file {file} of Python's"):
        find_method(f"{file}:Net")


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "touch executed"],
        ["${env}", "sh", "-c", "touch executed", "${program}"],
        ["${interpreter}", "evil.py", "${program}"],
        ["${interpreter}", "-c", "import evil", "${program}", "${args}"],
        ["${envvar:PYTHON}", "${program}", "${args_no_hyphens}"],
        ["${interpreter}", "${envvar:EVIL}", "${args_no_hyphens}"],
    ],
)
def test_a_sweep_runs_run_py_and_nothing_else(command, stranger, capsys):
    file = yaml.safe_load(Path("sweep.yaml").read_text()) | {"command": command}
    Path("sweep.yaml").write_text(yaml.safe_dump(file))
    assert sweep.main(["sweep.yaml", "--local"]) == 2
    assert "its command must begin with ${env} ${interpreter} ${program}" in capsys.readouterr().err
    assert not stranger.mark.exists()


WAYS = {  # to name a file so that it is not seen as one: words of the command, and parameters
    "envvar": (["method=${envvar:EVIL}"], {}),
    "envvar_with_hyphens": (["--method", "${envvar:EVIL}"], {}),
    "pieces": (["method=evil.p${envvar:REST}"], {}),
    "two": (["--method=${envvar:STEM}.py${envvar:COLON}Net"], {}),
    "equals": ([], {"method": "evil.py:Net=x"}),
    "slash": ([], {"method": "evil.py/:Net"}),
    "dot": ([], {"method": "evil.py/.:Net"}),
    "key": ([], {"method=evil.py:Net": "x"}),
    "list": ([], {"method": ["evil.py:Net"]}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["grid", "bayes"])
def test_no_way_of_writing_lets_a_sweep_name_a_file_alone(way, kind, stranger, capsys, monkeypatch):
    for name, value in (("EVIL", "evil.py:Net"), ("REST", "y:Net"), ("STEM", "evil"), ("COLON", ":")):
        monkeypatch.setenv(name, value)
    words, parameters = WAYS[way]
    file = yaml.safe_load(Path("sweep.yaml").read_text()) | {
        "command": [*grids.COMMAND, *words],
        "method": kind,
    }
    file["parameters"].pop("method")
    file["parameters"] |= {key: {"value": value} for key, value in parameters.items()}
    Path("sweep.yaml").write_text(yaml.safe_dump(file))
    assert sweep.main(["sweep.yaml", "--dry-run"]) == 2
    assert "would be executed: if you trust it, add method=" in capsys.readouterr().err
    assert not stranger.mark.exists()


@pytest.mark.parametrize("parameter", ["method", "metho", "runs.ldm.stage"])
@pytest.mark.parametrize("kind", ["grid", "bayes"])
def test_a_sweep_may_name_no_method_alone(parameter, kind, stranger, capsys):
    file = yaml.safe_load(Path("sweep.yaml").read_text()) | {"method": kind}
    file["parameters"].pop("method")
    file["parameters"][parameter] = {"values": [stranger.method]}
    Path("sweep.yaml").write_text(yaml.safe_dump(file))
    assert sweep.main(["sweep.yaml", "--dry-run"]) == 2
    assert f"if you trust it, add method={stranger.method}" in capsys.readouterr().err
    assert not stranger.mark.exists()
