"""Options of corpora as keys: all can be set, unset ones name nothing, and every hint can be followed."""

import re
from pathlib import Path

import pytest

from datamodules.corpora import CORPORA, Missing
from experiments.configuration import changes, configure, flat_keys, load_paper, paper_names, parse_override
from experiments.corpora import option_keys, options_of, spelled
from experiments.run import main
from signals.errors import UserError

BUILT = [paper for paper in paper_names() if "config" in load_paper(paper)]
EXAMPLES = {"text": "abc", "a number": "7", "a list": "[a, b]", "a section": "{path: abc}"}
READ = {"text": "abc", "a number": 7, "a list": ["a", "b"], "a section": {"path": "abc"}}


def value_at(config: dict, key: str) -> object:
    return flat_keys(config)[key]


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_option_of_every_corpus_can_be_set(corpus):
    """Where a test set or a part of a mixture is of that corpus, whether a page lists the option or not."""
    options = options_of(corpus)
    for turn in range(max(len(option.kinds) for option in options.values())):
        wanted = {
            f"{section}.{name}": option.kinds[turn % len(option.kinds)]
            for section in ("datasets.vctk", "mixtures.vctk.vctk")
            for name, option in options.items()
        }
        settings = [f"{section}.corpus={corpus}" for section in ("datasets.vctk", "mixtures.vctk.vctk")]
        config = configure(
            "audiosr", "smoke", [*(f"{k}={EXAMPLES[v]}" for k, v in wanted.items()), *settings]
        )
        assert {key: value_at(config, key) for key in wanted} == {k: READ[v] for k, v in wanted.items()}


@pytest.mark.parametrize("paper", BUILT)
def test_every_option_of_a_paper_s_corpora_can_be_set(paper):
    config = configure(paper, "smoke")
    listed = flat_keys(config)
    options = option_keys(config)
    kinds = {key: option.kinds[0] for key, option in options.items() if key not in listed}
    assert len(kinds) > 5
    after = configure(paper, "smoke", [f"{key}={EXAMPLES[kind]}" for key, kind in kinds.items()])
    assert {key: value_at(after, key) for key in kinds} == {key: READ[kind] for key, kind in kinds.items()}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "datasets.vctk.relase=0.80",
            "unknown key datasets.vctk.relase (did you mean datasets.vctk.release?)",
        ),
        ("datasets.vctk.speakers=28", "unknown key datasets.vctk.speakers"),
        ("datasets.esc50.mic=mic2", "unknown key datasets.esc50.mic"),
        ("datasets.vctk.mic=[mic1]", "datasets.vctk.mic=[mic1]: text is needed."),
        ("datasets.vctk.mic=null", "datasets.vctk.mic cannot be null: text is needed."),
        (
            "mixtures.all.speech.min_bandwidth=high",
            "mixtures.all.speech.min_bandwidth=high: a number is needed.",
        ),
        ("datasets.audiostock.stand_in.leave_out={a: 1}", "leave_out={a: 1}: text or a list is needed."),
    ],
)
def test_a_wrong_option_is_named(setting, message):
    with pytest.raises(UserError) as raised:
        configure("audiosr", "smoke", [setting])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "text", ["datasets.vctk.release=0.80", "datasets.vctk.path=2024", "mixtures.a.b.id=1e3", "release=0.80"]
)
def test_what_is_text_stays_text(text):
    assert parse_override(text)[1] == text.partition("=")[2]


def test_numbers_are_text_where_text_is_needed():
    config = configure(
        "audiosr", "smoke", ["datasets.vctk.mic=2", "datasets.audiostock.stand_in.leave_out=225"]
    )
    assert (config["datasets"]["vctk"]["mic"], config["datasets"]["audiostock"]["stand_in"]["leave_out"]) == (
        *("2", "225"),
    )


def test_what_is_not_set_names_nothing():
    plain = configure("audiosr", "smoke")
    for setting in (
        "datasets.vctk.release=0.92",
        "datasets.vctk.root=null",
        "datasets.vctk.division=ssr_eval",
    ):
        assert configure("audiosr", "smoke", [setting]) == plain
    twice = configure("audiosr", "smoke", ["datasets.vctk.release=0.80", "datasets.vctk.release=0.92"])
    assert twice == plain


def test_what_is_set_is_a_change_but_for_places():
    settings = ["datasets.vctk.release=0.80", "datasets.vctk.root=/elsewhere"]
    found = changes(configure("audiosr", "smoke", settings), configure("audiosr", "smoke"))
    assert found == ["datasets.vctk.release=0.80"]


# Hints -----------------------------------------------------------------------------------------------------


def missing(told: str = "Release 0.80 is there: set release=0.80 for it.") -> Missing:
    return Missing(told, None, ("vctk", "release", "0.80"))


@pytest.mark.parametrize("paper", BUILT)
def test_a_hint_can_be_followed(paper):
    """What is said to be set is set by it, wherever the paper names the corpus."""
    config = configure(paper, "smoke")
    told = str(spelled(missing(), config))
    (settings,) = re.findall(r"set (.*) for it", told)
    if settings:
        after = configure(paper, "smoke", settings.split(" "))
        sets = [
            *after["datasets"].values(),
            *(part for m in after["mixtures"].values() for part in m.values()),
        ]
        assert {each["release"] for each in sets if each["corpus"] == "vctk"} == {"0.80"}
    else:
        assert paper == "fma_unet"  # which has no VCTK


def test_a_corpus_of_one_s_own_is_mended_in_its_file():
    config = configure("audiosr", "smoke", corpus={"corpus": "vctk", "average": "file"}) | {
        "corpus": "my.yaml"
    }
    assert str(spelled(missing(), config)) == 'Release 0.80 is there: set release: "0.80" in my.yaml for it.'


def test_a_command_says_what_to_set_and_takes_it(tmp_path, workplace, capsys):
    from conftest import write_noise

    for speaker in ("p225", "p347", "p360"):
        write_noise(Path(tmp_path, "root", "VCTK-Corpus", "wav48", speaker, f"{speaker}_001.wav"), 1, 0.5)
    command = ["--paper", "audiosr", "--row", "Unprocessed", "--preset", "smoke", "pictures=0"]
    command += [
        f"data.root={tmp_path}/root",
        "data.workers=1",
        "datasets.esc50=null",
        "datasets.audiostock=null",
    ]
    assert main(command) == 2
    told = capsys.readouterr().err
    (settings,) = re.findall(r"Release 0\.80 is there: set (.*) for it", told)
    assert settings == "datasets.vctk.release=0.80 mixtures.vctk.vctk.release=0.80"
    assert main([*command, *settings.split(" ")]) == 0
    assert len(list(workplace.glob("runs/audiosr/*/record.json"))) == 3
