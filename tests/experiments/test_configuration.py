"""Configuration: strict keys and types, references, presets that differ in numbers only, papers as data."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from experiments.configuration import (
    PRESETS,
    changes,
    configure,
    flat_keys,
    load_paper,
    load_table,
    paper_names,
    parse_override,
)
from experiments.runs import count_parameters
from signals.errors import UserError

BUILT = [paper for paper in paper_names() if "config" in load_paper(paper)]
UNLIMITED = {"data.test_files", "data.held_out_files"}  # null there means all of them


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=1e-3", 0.001),
        ("a.b=None", None),
        ("a.b=null", None),
        ("a.b=True", True),
        ("a.b=false", False),
        ("a.b=[2,1e-1]", [2, 0.1]),
        ("a.b=16-mixed", "16-mixed"),
        ("a.b=x=y", "x=y"),
    ],
)
def test_a_value_has_the_type_that_it_reads_as(text, value):
    key, parsed = parse_override(text)
    assert key == "a.b"
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["steps", "=3", "a=[1,2", "a={b"])
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(UserError, match="cannot read") as error:
        parse_override(text)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("method.stpes", "method.steps"),
        ("data.rot", "data.root"),
        ("runs.vae.training.step", "runs.vae.training.steps"),
        ("protocols.published.metric", "protocols.published.metrics"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, near):
    with pytest.raises(UserError) as error:
        configure("audiosr", "smoke", [f"{key}=1"])
    assert f"unknown key {key} (did you mean {near}?)" in str(error.value)


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("method.steps=many", "a number is needed"),
        ("method.steps=true", "a number is needed"),
        ("method.steps=[1]", "a number is needed"),
        ("method.variant=3", "text is needed"),
        ("data.download=1", "true or false is needed"),
        ("runs.vae.optimizer.betas=0.5", "a list is needed"),
        ("runs.vae.training=3", "a section is needed"),
        ("runs.vae.training={steps: 3}", "is a section: set one of its keys"),
        ("runs.vae.start={a: 1}", "text or null is needed"),
        ("runs.vae.data.pool=many", "a number or null is needed"),
        ("trainer.threads=true", "a number or null is needed"),
        ("runs.vae.optimizer.decay_every=0", "a whole number from 1 on is needed"),
        ("trainer.precision=null", "cannot be null"),
    ],
)
def test_a_value_of_another_type_is_an_error(text, needed):
    with pytest.raises(UserError, match=needed) as error:
        configure("audiosr", "smoke", [text])
    assert text.partition("=")[0] in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024", "2024"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("{a: 1}", "{a: 1}"),
        ("here", "here"),
        ("null", None),
    ],
)
def test_a_folder_may_have_any_name(text, value):
    assert parse_override(f"data.root={text}") == ("data.root", value)
    assert configure("audiosr", "smoke", [f"data.root={text}"])["data"]["root"] == value


def test_checkpoints_at_each_check_only():
    assert configure("audiosr", "smoke", ["trainer.save_every=null"])["trainer"]["save_every"] is None
    for text in ("often", "-1"):
        with pytest.raises(UserError, match="save_every"):
            configure("audiosr", "smoke", ["trainer.save_every=null", f"trainer.save_every={text}"])


def test_a_section_in_the_place_of_null_is_a_change():
    """The stand-in of a corpus may be one: its keys are not in the preset."""
    changed = ["splits.all.stand_in={path: here}", "split=all"]
    config = configure("audioedsr", "smoke", changed)
    found = changes(config, configure("audioedsr", "smoke"))
    assert {"splits.all.stand_in.path=here", "datasets.vctk.stand_in.path=here"} <= set(found)


def test_a_class_may_say_how_it_is_trained():
    guest = {"stage": "mine.py:Net", "options": {"channels": 16}, "weights": {"mse": 1.0}}
    guest |= {"optimizer": {"betas": (0.5, 0.9)}, "data": {"resampling": "sinc", "window": 500}}
    run = configure("audiosr", "full", guests={"guest": guest})["runs"]["guest"]
    assert run["stage"] == "mine.py:Net"
    assert run["optimizer"]["betas"] == [0.5, 0.9]
    assert (run["data"]["resampling"], run["data"]["window"]) == ("sinc", 500)
    assert (run["options"], run["weights"]) == ({"channels": 16}, {"mse": 1.0})


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"trainng": {"steps": 5}}, "mine.py:Net: unknown key defaults.trainng .did you mean"),
        ({"training": {"step": 5}}, "did you mean defaults.training.steps"),
        ({"training": 5}, "defaults.training=5: a section is needed"),
        ({"training": {"steps": "many"}}, "defaults.training.steps=many: a number is needed"),
        ({"training": {"steps": None}}, "defaults.training.steps cannot be null"),
        ({"optimizer": {"decay_every": 0}}, "defaults.optimizer.decay_every=0: a whole number from 1 on"),
    ],
)
def test_wrong_defaults_of_a_class_are_named(defaults, message):
    with pytest.raises(UserError, match=message):
        configure("audiosr", "smoke", guests={"guest": {"stage": "mine.py:Net", **defaults}})


def test_a_paper_that_trains_no_guests_says_so(monkeypatch):
    from experiments import configuration

    page = {key: value for key, value in load_paper("audiosr").items() if key != "guest"}
    monkeypatch.setattr(configuration, "load_paper", lambda name: page)
    assert configure("audiosr", "smoke")["runs"]
    with pytest.raises(UserError, match=r"audiosr does not say .*how a method of your own is trained"):
        configure("audiosr", "smoke", guests={"guest": {"stage": "mine.py:Net"}})


def test_command_line_comes_over_preset_over_paper_over_base():
    assert configure("audiosr", "full")["method"]["steps"] == 50
    assert configure("audiosr", "smoke")["method"]["steps"] == 2
    assert configure("audiosr", "smoke", ["method.steps=5"])["method"]["steps"] == 5
    assert configure("audiosr", "smoke", ["datasets.esc50=null"])["datasets"]["esc50"] is None


def test_references_are_resolved():
    config = configure("audiosr", "smoke", ["method.variant=code", "frontend.fmin=30"])
    assert config["runs"]["ldm"]["options"]["settings"]["variant"] == "code"
    assert config["runs"]["speech"]["options"]["settings"]["variant"] == "code"
    assert config["runs"]["vae"]["options"]["frontend"] == config["frontend"]
    assert not [value for value in flat_keys(config).values() if isinstance(value, str) and "$" in value]


def test_a_key_below_a_reference_changes_alone():
    own = ["runs.speech.optimizer.lr=0.5", "runs.ldm.optimizer.clip=7.0"]
    for overrides in (own, own[::-1]):
        runs = configure("audiosr", "smoke", overrides)["runs"]
        untouched = configure("audiosr", "smoke")["runs"]["ldm"]["optimizer"]
        assert runs["ldm"]["optimizer"] == {**untouched, "clip": 7.0}
        assert runs["speech"]["optimizer"] == {**untouched, "clip": 7.0, "lr": 0.5}


def test_changes_are_what_a_number_follows_from():
    neutral = [
        "data.root=/x",
        "output=/y",
        "trainer.devices=2",
        "pictures=0",
        "seed=3",
        "datasets.esc50=null",
    ]
    meant = ["method.steps=5", "data.test_files=1", "datasets.vctk.average=file"]
    config = configure("audiosr", "demo", [*neutral, *meant])
    assert changes(config, configure("audiosr", "demo")) == sorted(meant)


def test_unknown_names_are_errors():
    with pytest.raises(UserError, match="did you mean audiosr"):
        load_paper("audiosrr")
    with pytest.raises(UserError, match="did you mean table1"):
        load_table("audiosr", "tabel1")
    with pytest.raises(UserError, match="did you mean AudioSR"):
        load_table("audiosr", "table1").row("AudioSr")


@pytest.mark.parametrize("paper", ["tfnet", "audioedsr"])
def test_an_unknown_variant_is_named(paper):
    with pytest.raises(UserError, match=r"method.variant=txt .did you mean text"):
        configure(paper, "smoke", ["method.variant=txt"])


def test_a_paper_of_tables_only_is_not_built_yet(monkeypatch):
    from experiments import configuration

    page = {key: load_paper("audiosr")[key] for key in ("title", "tables")}
    monkeypatch.setattr(configuration, "load_paper", lambda name: page)
    with pytest.raises(UserError, match="audiosr: not built yet"):
        configure("audiosr", "smoke")


@pytest.mark.parametrize("paper", paper_names())
def test_every_page_and_table_loads(paper):
    page = load_paper(paper)
    assert page["title"]
    for name in page["tables"]:
        table = load_table(paper, name)
        keys = {column.key for column in table.columns}
        assert len(keys) == len(table.columns)
        assert table.rows
        for row in table.rows:
            assert table.cells(row)
            assert keys >= set(row.published) | set(row.std) | set(row.notes) | set(row.columns)
            assert not (row.published and row.columns)


@pytest.mark.parametrize("paper", BUILT)
def test_what_a_built_paper_names_is_there(paper):
    config = configure(paper, "smoke")
    assert {"published", "aligned"} <= set(config["protocols"])
    for run in config["runs"].values():
        named = [run["data"]["mixture"]]
        if named == [None]:  # what is tested on names it
            named = config["datasets"].keys()
        assert set(named) <= set(config["mixtures"])
        assert {*run["uses"].values(), *filter(None, [run["start"]])} <= set(config["runs"])
    for name in load_paper(paper)["tables"]:
        table = load_table(paper, name)
        assert configure(paper, "full", table=table.config).keys() == config.keys()
        assert {column.dataset for column in table.columns} - {None} <= set(config["datasets"])
        for row in table.rows:
            assert {*row.parts.values(), *row.runs.values()} <= set(config["runs"])


@pytest.mark.parametrize("paper", BUILT)
def test_a_system_is_the_same_in_all_tables_of_its_paper(paper):
    """Tables find their numbers by the names of systems."""
    meanings = {}
    for name in load_paper(paper)["tables"]:
        table = load_table(paper, name)
        for row in table.rows:
            for column in table.cells(row):
                if row.published.get(column.key) == "N/A":
                    continue
                where = (str(table.config), row.system, replace(column, key="", metric=""))
                what = (row.method, table.parts(row, column), row.settings, row.data, row.protocol)
                assert meanings.setdefault(where, what) == what, (name, row.system)


def is_number(key: str, value: object) -> bool:
    if isinstance(value, list):
        return all(is_number(key, item) for item in value)
    return (isinstance(value, int | float) and not isinstance(value, bool)) or (
        value is None and key in UNLIMITED
    )


@pytest.mark.parametrize("paper", BUILT)
def test_presets_differ_in_numbers_only(paper):
    full = flat_keys(configure(paper, "full"))
    for preset in set(PRESETS) - {"full"}:
        other = flat_keys(configure(paper, preset))
        assert other.keys() == full.keys()
        changed = [key for key in full if full[key] != other[key] and not isinstance(full[key], Mapping)]
        assert changed
        assert not [key for key in changed if not is_number(key, full[key]) or not is_number(key, other[key])]


@pytest.mark.parametrize("paper", BUILT)
def test_presets_build_the_same_classes_and_weigh_the_same_terms(paper):
    configs = [configure(paper, preset) for preset in PRESETS]
    for run in configs[0]["runs"]:
        stages = [count_parameters(config, run)[1] for config in configs]
        # By name: a parametrised layer has a class of its own.
        classes = [{f"{type(m).__module__}.{type(m).__qualname__}" for m in s.modules()} for s in stages]
        assert classes[0] == classes[1] == classes[2]
        weights = [set(config["runs"][run]["weights"]) for config in configs]
        assert weights[0] == weights[1] == weights[2] == set(stages[0].weights)


@pytest.mark.parametrize(
    ("run", "parameters"), [("vae", 223_535_569), ("ldm", 258_195_088), ("vocoder", 190_281_889)]
)
def test_full_networks_have_the_parameters_of_the_released_ones(run, parameters):
    count, stage = count_parameters(configure("audiosr", "full"), run)
    assert count == parameters
    assert all(parameter.is_meta for parameter in stage.parameters())


def test_parameters_are_counted_after_transformers_has_loaded_a_model():
    """Within, `torch.linspace` is another: PyTorch's list of what makes tensors must not have that."""
    import torch
    from transformers.initialization import meta_device_safe_creation_ops

    with torch.device("meta"), meta_device_safe_creation_ops():
        torch.ones(1)
    config = configure("audiosr", "smoke")
    (name, *_) = [name for name, run in config["runs"].items() if run["stage"] == "nuwave"]
    assert count_parameters(config, name)[1].levels.is_meta
