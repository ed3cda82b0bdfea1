"""Sweep files are the tables, their commands are those of `wandb agent`, and they run without an account."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from experiments import grids, sweep
from experiments.configuration import configure, load_paper, load_table, paper_names
from experiments.records import all_records, cell_name, write_json
from experiments.rows import tasks
from experiments.run import main as run_main
from experiments.run import parse, selected
from experiments.runs import count_parameters
from signals.errors import UserError

HOUSE = Path(__file__).parents[2]
TABLES = [(paper, name) for paper in paper_names() for name in load_paper(paper)["tables"]]
NOT_TESTED = {("fma_unet", "figure2")}  # listeners' marks
SWEPT = [table for table in TABLES if table not in NOT_TESTED]
SMALL = {"preset": "smoke", "data.test_files": 1, "pictures": 0, "data.workers": 1, "trainer.threads": 1}


@cache
def full(paper: str, name: str) -> dict:
    changes = load_table(paper, name).config
    first = load_paper(paper)["tables"][0]  # what says nothing otherwise is configured as it is
    return configure(paper, "full", table=changes) if changes or name == first else full(paper, first)


def cells(paper: str, name: str) -> list:
    """Row and task of every cell of a table that is tested."""
    table = load_table(paper, name)
    return [(row, task) for row in table.rows for task in tasks(table, row, full(paper, name))]


def read(name: str) -> dict:
    return yaml.safe_load((HOUSE / "sweeps" / f"{name}.yaml").read_text())


def enumerated(parameters: dict) -> list[dict]:
    """The grid, read off the file without the code under test."""
    axes = [values["values"] if "values" in values else [values["value"]] for values in parameters.values()]
    return [dict(zip(parameters, point, strict=True)) for point in product(*axes)]


# The files ------------------------------------------------------------------------------------------------


def test_one_file_for_each_table_and_one_search_for_each_paper():
    assert all(not cells(*table) for table in NOT_TESTED)
    tables = {f"{paper}_{name}" for paper, name in SWEPT}
    searches = {f"{paper}_search" for paper in paper_names()}
    assert {path.stem for path in (HOUSE / "sweeps").glob("*")} == tables | searches


@pytest.mark.parametrize(("paper", "name"), SWEPT)
def test_runs_of_a_sweep_are_the_cells_of_its_table(paper, name):
    file = read(f"{paper}_{name}")
    assert file["name"] == f"{paper} {name}" and file["method"] == "grid"
    wanted = [(row.system, *task.task, 0) for row, task in cells(paper, name)]
    found, commanded = [], []
    for point in enumerated(file["parameters"]):
        assert (point["paper"], point["table"], point["preset"]) == (paper, name, "full")
        named = {"dataset": 0, "scale": 1, "cutoff": 2, "loss": 3}.items()
        matching = [
            (row.system, *task.task, point["seed"])
            for row, task in cells(paper, name)
            if point.get("row", row.system) == row.system
            and point.get("cell", cell_name(row.system, vars(task))) == cell_name(row.system, vars(task))
            and all(point.get(flag, task.task[at]) == task.task[at] for flag, at in named)
        ]
        assert len(matching) == 1, point  # one run, one cell
        found += matching
        args = parse(grids.literal(file, point)[3:])  # and what run.py makes of the command is the same
        table, rows = selected(args, load_table(paper, name))
        (task,) = (task for row in rows for task in tasks(table, row, full(paper, name)))
        commanded.append((rows[0].system, *task.task, *(int(each.split("=")[1]) for each in args.overrides)))
    assert found == wanted  # in the table's order
    assert len(set(found)) == len(found)
    assert commanded == found


def test_files_are_written_from_the_tables(tmp_path):
    for path in grids.write_sweeps(tmp_path):
        assert path.read_text() == (HOUSE / "sweeps" / path.name).read_text()
        assert max(map(len, path.read_text().splitlines())) <= 110


@pytest.mark.parametrize("path", sorted((HOUSE / "sweeps").glob("*")), ids=lambda path: path.stem)
def test_files_are_of_the_form_that_wandb_reads(path):
    """By hand after its documentation; by W&B's own `sweeps`, too, where that is installed."""
    file = yaml.safe_load(path.read_text())
    known = {"name", "description", "project", "program", "command", "method", "parameters"}
    searched = {"metric", "early_terminate", "run_cap"}
    assert file.keys() == (known if file["method"] == "grid" else known | searched)
    assert (HOUSE / file["program"]).is_file()
    assert file["command"] == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    for parameter in file["parameters"].values():
        kinds = ({"value"}, {"values"}, {"distribution", "min", "max"})
        assert parameter.keys() in kinds[: 2 if file["method"] == "grid" else 3]
        assert parameter.get("values", [1])


def test_wandbs_own_search_enumerates_the_same():
    """Its package asks for an older NumPy: here only where it is installed (`pip install --no-deps`)."""
    theirs = pytest.importorskip("sweeps.config", reason="W&B's own package is not installed")
    from sweeps import next_runs

    for path in sorted((HOUSE / "sweeps").glob("*")):
        file = yaml.safe_load(path.read_text())
        assert theirs.schema_violations_from_proposed_config(file) == []
        if file["method"] == "grid":
            ours = [sorted(point.items()) for point in grids.grid(file)]
            runs = next_runs(theirs.SweepConfig(file), [], n=len(ours) + 1)
            found = [
                sorted((key, given["value"]) for key, given in run.config.items()) for run in runs if run
            ]
            assert sorted(found) == sorted(ours)


# Commands -------------------------------------------------------------------------------------------------


def by_the_agent(command: list, parameters: dict) -> list[str]:
    """As `_command_run` of wandb_agent.py builds a command, with W&B's own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    words = create_sweep_command(list(command))
    told = create_sweep_command_args({"args": {key: {"value": value} for key, value in parameters.items()}})
    told |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [grids.PROGRAM]}
    built = []
    for word in map(str, words):
        built += told.get(word[2:-1]) or [] if word.startswith("${") and word.endswith("}") else [word]
    return built


def built(command: list, parameters: dict) -> list[str]:
    return grids.literal({"program": grids.PROGRAM, "command": command}, parameters)


@pytest.mark.parametrize("macro", ["args", "args_no_hyphens", "args_no_boolean_flags"])
def test_commands_are_those_of_the_agent(macro):
    values = [None, True, False, 3, 1e-5, 0.001, [1, 2], [[0.9, 0.999], ["a"]], {"a": None}]
    texts = ["AudioSR on vctk, 4 kHz", "a b", 'say "x"', "None", "", "=", "ü"]
    parameters = {f"key.{number}": value for number, value in enumerate([*values, *texts])}
    command = [*grids.COMMAND[:3], "--fixed", 7, f"${{{macro}}}"]
    assert built(command, parameters) == by_the_agent(command, parameters)


def test_variables_are_those_of_the_agent(monkeypatch):
    monkeypatch.setenv("CORPORA", "/data/my corpora")
    monkeypatch.setenv("WORDS", "${args}")
    monkeypatch.delenv("NOWHERE", raising=False)
    words = ["data.root=${envvar:CORPORA}", "${envvar:CORPORA}/${envvar:CORPORA}", "${envvar:WORDS}"]
    words += ["output=${envvar:NOWHERE}", "${envvar:NOWHERE}"]
    command = [*grids.COMMAND, *words]
    ours = built(command, {"seed": 1})
    assert ours == by_the_agent(command, {"seed": 1})
    assert ours[3:] == [
        "seed=1",
        "data.root=/data/my corpora",
        "/data/my corpora//data/my corpora",
        "--seed=1",
        "output=NOWHERE",  # as W&B has it
        "NOWHERE",
    ]


@pytest.mark.parametrize("macro", ["args", "args_no_hyphens", "args_no_boolean_flags"])
def test_run_py_understands_what_the_agent_says(macro):
    parameters = {"paper": "audiosr", "row": "GT-Mel", "seed": 3, "runs.vocoder.optimizer.lr": 1e-5}
    args = parse(built([*grids.COMMAND[:3], f"${{{macro}}}"], parameters)[3:])
    assert (args.paper, args.row, args.seeds) == ("audiosr", ["GT-Mel"], 1)
    assert args.overrides == ["seed=3", "runs.vocoder.optimizer.lr=1e-05"]


def known_to_wandb() -> list[str]:
    """The macros of arguments that the installed W&B builds, and the one that its agent adds."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    return [*create_sweep_command_args({"args": {}}), "args_json_file"]


def loaded(folder: Path, **changes) -> dict:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(read("audiosr_table1") | changes))
    return grids.load_sweep(path)


@pytest.mark.parametrize("macro", [*known_to_wandb(), "arsg", "envvar:lower"])
def test_macros_that_run_py_cannot_be_given_are_refused_by_name(macro, tmp_path):
    command = [*grids.COMMAND[:3], f"${{{macro}}}"]
    if macro in ("args", "args_no_hyphens", "args_no_boolean_flags"):
        assert loaded(tmp_path, command=command)["command"] == command
        return
    with pytest.raises(UserError) as told:
        loaded(tmp_path, command=command)
    assert str(told.value) == (
        f"{tmp_path / 'sweep.yaml'}: run.py cannot be given ${{{macro}}}: use ${{args_no_hyphens}}."
    )


@pytest.mark.parametrize("parameter", [{"value": False}, {"values": [True, False]}])
def test_what_is_false_is_not_left_out(parameter, tmp_path):
    command = [*grids.COMMAND[:3], "${args_no_boolean_flags}"]
    parameters = read("audiosr_table1")["parameters"] | {"data.download": parameter}
    with pytest.raises(
        UserError, match=r"leaves out data.download where it is false: use \$\{args_no_hyphens\}"
    ):
        loaded(tmp_path, command=command, parameters=parameters)
    assert loaded(tmp_path, parameters=parameters)


def test_variables_stay_variables_on_the_server(tmp_path, monkeypatch):
    """Other machines have their own, and some are secrets."""
    monkeypatch.setenv("SECRET", "hunter2")
    assert "hunter2" not in str(loaded(tmp_path, command=[*grids.COMMAND, "output=${envvar:SECRET}"]))


@pytest.fixture
def place(tiny_corpus, tmp_path_factory, tmp_path, monkeypatch) -> dict:
    """What puts a run on the small corpus; commands are given in the repository."""
    monkeypatch.chdir(HOUSE)
    places = {"data.root": tiny_corpus, "data.folder": tmp_path_factory.getbasetemp() / "stores"}
    return {key: str(path) for key, path in {**places, "output": tmp_path / "runs"}.items()} | SMALL


@pytest.mark.parametrize(("paper", "name"), SWEPT)
def test_one_run_of_each_sweep(paper, name, place, tmp_path):
    """From the literal command: the cell with the fewest trainings."""
    file = read(f"{paper}_{name}")
    costs = [len(row.parts) + len(row.runs) for row, _ in cells(paper, name)]
    point = enumerated(file["parameters"])[costs.index(min(costs))]
    command = grids.literal(file, point | place)
    assert command[:3] == ["/usr/bin/env", "python", "experiments/run.py"]
    assert run_main(command[3:]) == 0
    kinds = [record["kind"] for record in all_records(tmp_path / "runs", paper)]
    assert len(kinds) == 1 + kinds.count("run")


def extremes(parameter: dict) -> list:
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("paper", paper_names())
def test_every_choice_of_a_search_is_one(paper):
    file = read(f"{paper}_search")
    assert file["method"] == "bayes" and file["metric"]["name"].endswith("/held_out/model")
    run = file["metric"]["name"].split("/")[0]
    choices = {key: extremes(parameter) for key, parameter in file["parameters"].items()}
    for turn in range(max(map(len, choices.values()))):
        point = {key: values[turn % len(values)] for key, values in choices.items()}
        args = parse(grids.literal(file, point)[3:])
        table, (row,) = selected(args, load_table(paper, point["table"]))
        config = configure(paper, args.preset, args.overrides)
        (task,) = tasks(table, row, config)
        assert run in table.parts(row, task).values()
        training = config["runs"][run]["training"]
        checks, rest = divmod(training["steps"], training["check_every"])
        assert rest == 0 and checks > file["early_terminate"]["min_iter"] * file["early_terminate"]["eta"]
        assert count_parameters(config, run)[0] > 0


@pytest.mark.parametrize("paper", paper_names())
def test_one_run_of_each_search(paper, place, tmp_path):
    """With the last of each choice; smoke runs are too short for their checks."""
    file = read(f"{paper}_search")
    point = {key: extremes(parameter)[-1] for key, parameter in file["parameters"].items()}
    point |= {key: 2 for key in point if key.endswith("check_every")}
    assert run_main(grids.literal(file, point | place)[3:]) == 0
    records = list(all_records(tmp_path / "runs", paper))
    trained = [record["run"] for record in records if record["kind"] == "run"]
    assert file["metric"]["name"].split("/")[0] in trained
    assert [record["system"] for record in records if record["kind"] == "score"] == [point["row"]]


# The grid here --------------------------------------------------------------------------------------------


class Child:
    """A process that ends with `code` once it has been looked at `looks` times."""

    def __init__(self, code: int, looks: int):
        self.code, self.looks = code, looks

    def poll(self):
        self.looks -= 1
        return self.code if self.looks <= 0 else None


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Jobs by name with the runs they need; what became of each is scripted. Returns a function."""
    monkeypatch.setattr(sweep, "TICK", 0)

    def do(needs: dict[str, str], slots: int, codes: dict[str, int], looks: dict[str, int] | None = None):
        table = load_table("audioedsr", "table3")
        runs = {run: tmp_path / run for text in needs.values() for run in text}
        jobs = [
            sweep.Job(n, [], table, [], None, {"output": str(tmp_path)}, name, {runs[r] for r in text})
            for n, (name, text) in enumerate(needs.items())
        ]
        running, history = {}, []

        def start(job, environment):
            together = {name for name, child in running.items() if child.looks > 0}
            history.append((job.name, together, environment["slot"]))
            job.log.parent.mkdir(parents=True, exist_ok=True)
            code = codes.get(job.name, 0)
            words = f"run.py: no number for {job.name} (x): it went wrong\nbye\n" if code == 1 else "a line\n"
            job.log.write_text(words)
            if code == 0:
                for run in job.needs:
                    run.mkdir(exist_ok=True)
                    write_json(run / "record.json", {})
            running[job.name] = Child(code, (looks or {}).get(job.name, 3))
            return running[job.name]

        monkeypatch.setattr(sweep, "start", start)
        failed = sweep.work(jobs, [{"slot": str(slot)} for slot in range(slots)], len(jobs))
        return failed, history

    return do


def test_no_job_waits_for_a_run_that_another_trains(tmp_path):
    table = load_table("audioedsr", "table3")

    def job(name: str, needs: str):
        folders = {tmp_path / run for run in needs}
        return sweep.Job(0, [], table, [], None, {}, name, folders)

    vae, both, none, other = job("vae", "v"), job("both", "vl"), job("none", ""), job("other", "o")
    assert sweep.next_job([vae, both], []) is vae
    assert sweep.next_job([both, none, other], [vae]) is none
    assert sweep.next_job([both, other], [vae]) is other
    assert sweep.next_job([both], [vae, none]) is None
    (tmp_path / "v").mkdir()
    write_json(tmp_path / "v" / "record.json", {})  # finished: nobody waits for it
    assert sweep.next_job([both], [vae]) is both
    assert sweep.next_job([], [vae]) is None


def test_jobs_run_side_by_side_and_a_failed_one_stops_no_other(scripted, capsys):
    failed, history = scripted({"A": "", "B": "", "C": "", "D": ""}, 2, {"B": 1, "C": -9, "A": 3})
    assert [name for name, *_ in history] == ["A", "B", "C", "D"]
    assert {slot for *_, slot in history} == {"0", "1"}
    assert max(len(together) for _, together, _ in history) == 1  # two at a time
    assert failed["B"].startswith("it went wrong (log ")
    assert failed["C"].startswith("killed by SIGKILL; the same command goes on")
    assert failed["A"].startswith("a line")
    assert failed.keys() == {"A", "B", "C"}
    assert "finished D" in capsys.readouterr().out


def test_what_failed_to_train_is_not_trained_again(scripted):
    failed, history = scripted({"A": "v", "B": "vl", "C": "l", "D": ""}, 1, {"A": 1})
    assert [name for name, *_ in history] == ["A", "C", "D"]
    assert failed["B"].startswith("it went wrong") and failed.keys() == {"A", "B"}


def test_a_killed_run_is_left_to_the_others(scripted):
    failed, history = scripted({"A": "v", "B": "v"}, 2, {"A": -15})
    assert [name for name, *_ in history] == ["A", "B"]
    assert failed.keys() == {"A"}


def test_an_interrupt_reaches_every_child_and_is_told(tmp_path, monkeypatch, capsys):
    """Even one that a shell has had ignored, as it does for `command &`."""
    waits = "import signal, sys, time; print(1, flush=True); time.sleep(60)"
    job = sweep.Job(
        1,
        [sys.executable, "-c", waits],
        load_table("audioedsr", "table3"),
        [],
        None,
        {"output": str(tmp_path)},
        "A",
    )
    children = []
    start = sweep.start
    monkeypatch.setattr(sweep, "start", lambda *given: children.append(start(*given)) or children[-1])

    def interrupt():
        while not (job.log.is_file() and job.log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=interrupt).start()
    try:
        monkeypatch.setattr(sweep, "run", lambda args: sweep.work([job], [dict(os.environ)], 1))
        assert sweep.main(["x"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "the same command goes on" in capsys.readouterr().err
    assert children[0].returncode == -signal.SIGINT or "KeyboardInterrupt" in job.log.read_text()


def test_slots_have_a_gpu_each_in_turn_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(sweep, "gpus", lambda: ["2", "5"])
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in sweep.environments(3)] == ["2", "5", "2"]
    assert len(sweep.environments(None)) == 2
    assert "OMP_NUM_THREADS" not in sweep.environments(1)[0]
    monkeypatch.setattr(sweep, "gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert len(sweep.environments(None)) == 1
    assert [slot["OMP_NUM_THREADS"] for slot in sweep.environments(3)] == ["2", "2", "2"]
    assert sweep.environments(20)[0]["OMP_NUM_THREADS"] == "1"
    assert sweep.environments(1)[0]["PATH"].startswith(str(Path(sys.executable).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert sweep.environments(3)[0]["OMP_NUM_THREADS"] == "5"


@pytest.mark.slow
def test_a_grid_here_goes_on_where_it_was_killed(place, tmp_path, monkeypatch, capsys):
    """Three cells, two at a time, each a process: one is fine, one killed while it trains, one fails.

    And null, booleans and lists survive the command.
    """
    runs = tmp_path / "runs" / "audioedsr"
    parameters = {"paper": "audioedsr", "table": "table3", "scale": 4, **place}
    parameters |= {"training.steps": 20, "trainer.save_every": 0, "equaliser.check_every": 3}
    parameters |= {"trainer.max_time": None, "edsr.icnr": True, "unet.skip": False}
    parameters |= {"optimizer.betas": [0.5, 0.9]}
    file = {"program": grids.PROGRAM, "command": grids.COMMAND, "method": "grid"}
    file["parameters"] = {key: {"value": value} for key, value in parameters.items()}
    file["parameters"]["row"] = {"values": ["AudioEDSR", "Linear equaliser", "Spline"]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(file))
    started, killers, start = [], [], sweep.start

    def kill_once_saved(child):
        while child.poll() is None and not list(runs.glob("*/last.ckpt")):
            time.sleep(0.01)
        child.kill()

    def watched(job, environment):
        started.append(job.name)
        child = start(job, environment)
        if "AudioEDSR" in job.name and not killers:
            killers.append(threading.Thread(target=kill_once_saved, args=[child]))
            killers[0].start()
        return child

    monkeypatch.setattr(sweep, "start", watched)
    command = [str(tmp_path / "grid.yaml"), "--agents", "2"]
    assert sweep.main(command) == 1
    told = capsys.readouterr()
    assert len(started) == 3 and "finished Spline on vctk, x4" in told.out
    assert "no number for AudioEDSR on vctk, x4: killed by SIGKILL; the same command goes on" in told.err
    assert "Linear equaliser on vctk, x4: runs.equaliser_x4.training.steps must be a multiple" in told.err
    (record,) = all_records(tmp_path / "runs", "audioedsr")
    config = yaml.safe_load((runs / record["id"] / "config.yaml").read_text())
    assert config["trainer"]["max_time"] is None
    assert config["edsr"]["icnr"] is True and config["unet"]["skip"] is False
    assert config["optimizer"]["betas"] == [0.5, 0.9]

    started.clear()
    command += ["row=AudioEDSR"]
    assert sweep.main(command) == 0
    assert started == ["AudioEDSR on vctk, x4"]
    assert "goes on from its last checkpoint" in (runs / "sweeps" / "table3" / "001.log").read_text()
    records = list(all_records(tmp_path / "runs", "audioedsr"))
    systems = [record["system"] for record in records if record["kind"] == "score"]
    assert sorted(systems) == ["AudioEDSR", "Spline"]

    started.clear()
    capsys.readouterr()
    assert sweep.main(command) == 0
    assert not started and "1 of 1 cells were scored before" in capsys.readouterr().out
    assert sweep.main([*command[:-1], "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("# finished") for line in lines[:3]] == [True, False, True]
    assert lines[3] == "3 cells, 2 finished"
    assert sweep.main([*command[:-1], "--dry-run", f"data.folder={tmp_path / 'fresh'}"]) == 0
    assert capsys.readouterr().out.splitlines()[3] == "3 cells, 0 finished"
    assert not (tmp_path / "fresh").exists()  # nothing is prepared for that


# The command ----------------------------------------------------------------------------------------------


def test_dry_run_shows_commands_and_says_what_is_left_out(place, capsys):
    changes = [f"{key}={value}" for key, value in place.items()]
    assert sweep.main(["sweeps/qista_official.yaml", "--dry-run", *changes]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert sum("left out" in line for line in lines) == 4  # once a row
    assert last == "12 cells, 0 finished"
    assert sum(line.startswith("/usr/bin/env python experiments/run.py paper=qista") for line in lines) == 12
    assert sweep.main(["sweeps/qista_search.yaml", "--dry-run"]) == 0
    assert "n.channels={8, 16, 32}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "which sweep?"),
        (["sweeps/nothing.yaml"], "no such file"),
        (["experiments/base.yaml"], "is not a sweep: it needs program"),
        (["sweeps/qista_table2.yaml", "--agents", "0"], "--agents 0: a number from 1 on, or auto"),
        (["sweeps/qista_table2.yaml", "--agents", "some"], "--agents some"),
        (
            ["sweeps/qista_table2.yaml", "optimizer.lt=1"],
            "unknown key optimizer.lt (did you mean optimizer.lr?)",
        ),
        (["sweeps/qista_table2.yaml", "row=Spline"], "no row Spline"),
        (["sweeps/qista_table2.yaml", "preset=smok"], "preset=smok (did you mean smoke?)"),
        (["sweeps/qista_table2.yaml", "smoke"], "cannot read 'smoke'"),
        (["sweeps/audioedsr_table3.yaml", "row=Spline"], "this sweep goes cell by cell"),
        (["sweeps/qista_search.yaml"], "a bayes search needs W&B's server: `wandb login` first"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments, told, monkeypatch, capsys):
    monkeypatch.chdir(HOUSE)
    assert sweep.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and told in error and error.count("\n") == 1


@pytest.mark.parametrize(("codes", "worst"), [([0, 0], 0), ([1, 0], 1), ([0, -15], 143)])
def test_with_an_account_every_gpu_has_a_patient_agent(codes, worst, monkeypatch, capsys):
    """The server and its agents are stand-ins here."""
    created, started = [], []

    def popen(command, env, **_):
        started.append((command, env))
        code = codes[len(started) - 1]
        return SimpleNamespace(wait=lambda: code)

    server = SimpleNamespace(sweep=lambda config, project: created.append((config, project)) or "abc")
    monkeypatch.setitem(sys.modules, "wandb", server)
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(sweep, "gpus", lambda: ["0", "1"])
    monkeypatch.setattr(sweep, "account", lambda: True)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.chdir(HOUSE)
    assert sweep.main(["sweeps/qista_parameters.yaml", "preset=smoke"]) == worst
    ((config, project),) = created
    assert project == "wideband" and config["parameters"]["preset"] == {"value": "smoke"}
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in started] == ["0", "1"]
    assert all(environment["WANDB_AGENT_DISABLE_FLAPPING"] == "true" for _, environment in started)
    for command, _ in started:
        assert command[:4] == [sys.executable, "-m", "wandb", "agent"] and command[-1] == "abc"
    assert "wandb agent --project wideband abc" in capsys.readouterr().out
