"""Configuration: base, paper, table, preset, then `key=value`; an unknown key is an error, with the nearest.

Reading it needs neither torch nor Lightning.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from signals.errors import UserError

HERE = Path(__file__).parent
PAPERS = HERE / "papers"
PRESETS = ("smoke", "demo", "full")
SCALES = (None, "batch", "batch_and_lr")
LISTENER_METRICS = {"MOS", "overall_quality"}


@dataclass(frozen=True)
class Column:
    """What a column of a table prints: a metric of a dataset, under a scale or cut-off."""

    key: str
    dataset: str | None
    scale: int | None
    cutoff_hz: int | None
    loss: str | None
    metric: str

    @property
    def task(self) -> tuple:
        """What a row is tested on, whatever is measured: the same for all metrics of it."""
        return self.dataset, self.scale, self.cutoff_hz, self.loss


@dataclass(frozen=True)
class Row:
    """A printed line: a system, the method behind it, and the published values by column."""

    system: str
    method: str
    parts: Mapping[str, str]  # of the method, by the names of the runs they come from
    by: str | None  # what of a task decides which of `runs` it is tested with: scale, cutoff_hz or loss
    runs: Mapping[object, str]  # of a method that was trained itself, by the value of `by`
    settings: Mapping  # of the method, over the configuration's
    data: Mapping  # overrides for this row
    protocol: Mapping  # overrides for this row
    published: Mapping[str, object]
    std: Mapping[str, float]
    notes: Mapping[str, str]
    stand_in: str = ""  # what stands in the place of the named system, where another does
    columns: tuple[str, ...] = ()  # that one of ours fills, where not all
    corrected: tuple[str, ...] = ()  # columns where ours are computed otherwise than the published, see notes


@dataclass(frozen=True)
class Table:
    """A table as its paper's folder states it."""

    paper: str
    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    split: str = "test"  # whose recordings it is about
    config: Mapping = field(default_factory=dict)  # over the paper's, for this table

    def row(self, system: str) -> Row:
        for row in self.rows:
            if row.system == system:
                return row
        raise UserError(
            f"{self.paper} {self.name} has no row {system}" + nearest(system, [r.system for r in self.rows])
        )

    def parts(self, row: Row, task: Column) -> Mapping[str, str]:
        """The runs that the parts of a row's method come from, for one task."""
        if not row.runs:
            return row.parts
        value = getattr(task, row.by) if row.by else None
        if value not in row.runs:
            raise UserError(f"{self.paper} {self.name} {row.system}: no run for {row.by} {value}.")
        return {"itself": row.runs[value]}

    def cells(self, row: Row) -> list[Column]:
        """The columns that a row fills: those it published, or where it is ours, those it names, or all."""
        filled = row.published or row.columns
        return [column for column in self.columns if not filled or column.key in filled]


def own_row(system: str, method: str, runs: Mapping | None = None) -> Row:
    """The row of a method that no table names, as `--method` brings it."""
    empty = {"parts": {}, "settings": {}, "data": {}, "protocol": {}, "published": {}, "std": {}, "notes": {}}
    return Row(system, method, by=None, runs=runs or {}, **empty)


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or the choices where nothing is near."""
    known = list(known)
    many = len(known) > 12  # then the nearest is worth more than the whole list
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.0 if many else 0.6)
    return f" (did you mean {close[0]}?)" if close else f": one of {', '.join(known)}."


def paper_names() -> list[str]:
    return sorted(folder.parent.name for folder in PAPERS.glob("*/paper.yaml"))


@cache
def load_paper(name: str) -> dict:
    """The paper's own page: title, tables, and, once it is built, configuration and presets."""
    if name not in paper_names():
        raise UserError(f"unknown paper {name}" + nearest(name, paper_names()))
    return yaml.safe_load((PAPERS / name / "paper.yaml").read_text())


def released_key(paper: str, run: str) -> str:
    """The key that names the file of a run's released weights: `released.basic` of `${released.basic}`."""
    return load_paper(paper)["config"]["runs"][run]["released"].strip("${}")


@cache
def load_table(paper: str, name: str) -> Table:
    """Raises UserError where the paper has no such table."""
    names = load_paper(paper)["tables"]
    if name not in names:
        raise UserError(f"{paper} has no table {name}" + nearest(name, names))
    page = yaml.safe_load((PAPERS / paper / f"{name}.yaml").read_text())
    coordinates = dict.fromkeys(("dataset", "scale", "cutoff_hz", "loss"))
    columns = tuple(Column(key, **(coordinates | column)) for key, column in page["columns"].items())
    rows = []
    for system, row in page["rows"].items():
        published = row.get("published", {})
        notes = row.get("notes", {}) | (dict.fromkeys(published, row["note"]) if "note" in row else {})
        mappings = {key: row.get(key, {}) for key in ("parts", "runs", "settings", "data", "protocol", "std")}
        mappings["runs"] = {None: row["run"]} if "run" in row else mappings["runs"]
        rows.append(
            Row(
                *(system, row["method"]),
                by=row.get("by"),
                stand_in=row.get("stand_in", ""),
                columns=tuple(row.get("columns", ())),
                corrected=tuple(row.get("corrected", ())),
                published=published,
                notes=notes,
                **mappings,
            )
        )
    split, config = page.get("split", "test"), page.get("config", {})
    return Table(paper, name, page["title"], columns, tuple(rows), split, config)


def flat_keys(node: Mapping, prefix: str = "") -> dict[str, object]:
    """Every key of a nested mapping, dotted, with its value."""
    keys = {}
    for key, value in node.items():
        keys[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            keys |= flat_keys(value, f"{prefix}{key}.")
    return keys


def parse_override(text: str) -> tuple[str, object]:
    """`a.b=1e-3` -> ("a.b", 0.001). `None` is null, as W&B sweeps write it. A folder may be named 2024."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"cannot read {text!r}: settings are key=value.")
    if value == "None":
        return key, None
    if re.fullmatch(r"\d+(:\d+)+", value):  # YAML reads 10:00:00:00 as a number of base 60
        return key, value
    try:
        read = OmegaConf.to_object(OmegaConf.from_dotlist([f"v={value}"]))["v"]
    except (OmegaConfBaseException, yaml.YAMLError):
        raise UserError(f"cannot read the value of {text!r}.") from None
    is_text = key in PLACES or key.startswith("released.") or is_corpus_text(key)
    return key, value if is_text and read is not None and not isinstance(read, str) else read


def is_corpus_text(key: str) -> bool:
    return key == "release" or (
        key.startswith(("datasets.", "mixtures.")) and key.rpartition(".")[2] in TEXT_OPTIONS
    )


def load_corpus(path: Path) -> dict:
    """A corpus of one's own, as `--corpus` names it: a corpus and its options, `root` and `average`.

    A relative `root` is one from the file on. Raises UserError where it cannot be read.
    """
    try:
        corpus = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--corpus {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(corpus, dict):
        raise UserError(f"--corpus {path}: keys are needed, as in `path: my_speech`.")
    for key, value in corpus.items():
        if key in ("rate", "protocol"):
            raise UserError(f"--corpus {path}: {key} is the paper's to say: set data.rate, or --protocol.")
        if key in CORPUS_TEXTS and not isinstance(value, str):
            raise UserError(f'--corpus {path}: {key}={value}: text is needed; "quotes" make it so.')
        if key in CORPUS_NUMBERS and (kind(value) != "a number" or not 0 <= value < float("inf")):
            raise UserError(f"--corpus {path}: {key}={value}: a number from 0 on is needed.")
    root = path.resolve().parent / Path(corpus.get("root", ".")).expanduser()
    return {"corpus": "folder", "average": "file", **corpus, "root": str(root)}


def configure(
    paper: str,
    preset: str,
    overrides: Iterable[str] = (),
    guests: Mapping[str, Mapping] | None = None,
    corpus: Mapping | None = None,
    table: Mapping | None = None,
) -> dict:
    """The resolved configuration as a plain dict. Raises UserError on anything unknown or of a wrong type.

    table: what a table says otherwise than its paper.
    guests: the runs of a method that the paper does not know, over the paper's defaults for such.
    corpus: trained and tested on, in the place of all that the paper names.
    """
    page = load_paper(paper)
    if "config" not in page:
        raise UserError(f"{paper}: not built yet.")
    base = OmegaConf.merge(OmegaConf.load(HERE / "base.yaml"), page["config"], table or {})
    sizes = OmegaConf.create(page["presets"][preset])
    if guests and "guest" not in page:
        raise UserError(f"{paper} does not say (in `guest`) how a method of your own is trained.")
    for name, guest in (guests or {}).items():
        check_defaults(guest, page["guest"]["full"])
        base.runs[name] = OmegaConf.merge(page["guest"]["full"], guest)
        if preset != "full":
            sizes = OmegaConf.merge(sizes, {"runs": {name: page["guest"].get(preset, {})}})
    if corpus:
        tested = {key: value for key, value in corpus.items() if key != "weight"}
        trained = {key: value for key, value in corpus.items() if key != "average"}
        base.mixtures = {name: {"own": {"weight": 1.0, **trained}} for name in base.mixtures}
        for name, dataset in base.datasets.items():
            kept = {key: dataset[key] for key in ("protocol", "rate") if key in dataset}
            base.datasets[name] = tested | kept
    keys = flat_keys(resolved(base, paper))
    merged = OmegaConf.merge(base, sizes)
    written = flat_keys(OmegaConf.to_container(merged))
    unlisted: dict[str, object] = {}  # options of corpora
    # What others refer to comes first: a copy of it has the new value then.
    for text in sorted(overrides, key=lambda text: text.partition("=")[0] not in written):
        key, value = parse_override(text)
        if key not in keys:
            options = corpus_options(key, resolved(merged, paper))
            if key not in options:
                near = nearest(key, [*keys, *options])
                raise UserError(f"unknown key {key}{near}; --dry-run prints all keys.")
            unlisted[key] = options[key].read(key, value, text.partition("=")[2])
            if unlisted[key] == options[key].default:  # as if it were not said: it names no other run
                del unlisted[key]
            continue
        detach(merged, key)
        nullable = keys[key] is None or key in CAN_BE_NULL
        check_type(key, OmegaConf.select(merged, key), value, nullable)
        check_bounds(key, value)
        OmegaConf.update(merged, key, value, merge=not isinstance(value, Mapping))
    for key, value in unlisted.items():
        detach(merged, key)
        OmegaConf.update(merged, key, value, merge=False, force_add=True)
    for choices in ("variants", "objectives"):
        if choices in merged and (chosen := merged.method.variant) not in merged[choices]:
            raise UserError(f"method.variant={chosen}{nearest(str(chosen), merged[choices])}")
    return resolved(merged, paper)


def corpus_options(key: str, config: Mapping) -> Mapping:
    """Options of the corpora of a configuration, where a key may be one: they are not all listed in pages."""
    if not key.startswith(("datasets.", "mixtures.")):
        return {}
    from experiments.corpora import option_keys

    return option_keys(config)


def scaled(config: dict, processes: int) -> dict:
    """With the batches, and learning rates, of so many processes, where `trainer.scale` says so.

    Then these are other runs, with other names. Raises UserError on an unknown scale.
    """
    scale = config["trainer"]["scale"]
    if scale not in SCALES:
        raise UserError(f"trainer.scale={scale}{nearest(str(scale), map(str, SCALES))}")
    if scale is None or processes == 1:
        return config
    runs = {}
    for name, run in config["runs"].items():
        if "released" not in run:
            training = {**run["training"], "batch": run["training"]["batch"] * processes}
            rate = run["optimizer"]["lr"] * (processes if scale == "batch_and_lr" else 1)
            run = {**run, "training": training, "optimizer": {**run["optimizer"], "lr": rate}}
        runs[name] = run
    return config | {"runs": runs}


def detach(config: DictConfig, key: str) -> None:
    """Sections above `key` that refer to others become copies of their own."""
    for name in key.split(".")[:-1]:
        if OmegaConf.is_interpolation(config, name):
            config[name] = OmegaConf.to_container(config[name])
        config = config[name]


CAN_BE_NULL = {"trainer.save_every"}  # though it is not by default
# What may be null, so that its kind cannot be read off its value; by the last word of a key.
NULLABLE = dict.fromkeys(("workers", "threads", "test_files", "held_out_files"), "a number")
NULLABLE |= {"bits": "a number", "pool": "a number", "save_every": "a number", "start": "text"}
NULLABLE |= {"scale": "text"}
PLACES = {"data.root", "data.folder", "output"}  # and of released weights: text, whatever it looks like
# Options of corpora that are text, whatever they look like: release=0.80, path=2024.
TEXT_OPTIONS = {"release", "path", "root", "id", "config", "audio", "group"}
CORPUS_TEXTS = {"corpus", "root", "average", "path", "id"}
CORPUS_NUMBERS = {"weight", "min_bandwidth"}
# What each stage has keys of its own in.
STAGES_OWN = ("defaults.weights.", "defaults.options.", "defaults.data.degradation.")
SECTION_HINTS = {
    "datasets": ", or the whole to null to leave it out.",
    "mixtures": "; weight=0 leaves it out.",
}
NAMELESS = {"seed", "output", "pictures"} | {
    f"data.{key}" for key in ("root", "folder", "download", "workers", "loaders", "test_batch")
}


def changes(config: Mapping, preset: Mapping) -> list[str]:
    """How a configuration differs from that of its preset in what a number means.

    Not in places, machines (but for their precision), seeds, or columns left out.
    """

    def counts(key: str) -> bool:
        machine = key.startswith("trainer.") and key != "trainer.precision"
        left_out = key.startswith("datasets.") and key.count(".") == 1
        place = key.startswith("released.") or key.endswith((".released", ".root"))  # known by what is there
        return key not in NAMELESS and not machine and not left_out and not place

    keys, preset_keys = flat_keys(config), flat_keys(preset)
    changed = (key for key, value in keys.items() if preset_keys.get(key) != value and counts(key))
    return sorted(f"{key}={keys[key]}" for key in changed if not isinstance(keys[key], Mapping))


def resolved(config: DictConfig, paper: str) -> dict:
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{paper}: {str(error).splitlines()[0]}") from None


# The least whole number that makes sense, by the last word of a key.
LEAST = dict.fromkeys(("steps", "check_every", "batch", "window", "test_files", "held_out_files"), 1)
LEAST |= dict.fromkeys(("test_batch", "rate", "threads", "workers", "hop", "n_mels", "n_fft", "bits"), 1)
LEAST |= dict.fromkeys(("decay_every", "n_critic", "pool", "held_out_windows", "accumulate"), 1)
LEAST |= dict.fromkeys(("phases", "blocks", "stride", "depth"), 1)
LEAST |= dict.fromkeys(("seed", "pictures", "loaders", "overlap", "warmup", "critic_from"), 0)


def duration(text: str) -> int:
    """Seconds of `DD:HH:MM:SS`. Raises UserError on anything else."""
    parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text)
    if parts is None:
        raise UserError(f"trainer.max_time={text}: days:hours:minutes:seconds is needed, as in 00:08:00:00.")
    days, hours, minutes, seconds = map(int, parts.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def check_bounds(key: str, value: object) -> None:
    """Counts are whole and not below their least; weights are not negative. Raises UserError."""
    word = key.rpartition(".")[2]
    if word in LEAST and value is not None and (not isinstance(value, int) or value < LEAST[word]):
        raise UserError(f"{key}={value}: a whole number from {LEAST[word]} on is needed.")
    if key == "trainer.max_time" and value is not None:
        duration(str(value))
    if key == "trainer.save_every" and value is not None and not 0 <= value < float("inf"):
        raise UserError(f"{key}={value}: minutes, 0 or more, or null.")
    if word == "weight" and value < 0:
        raise UserError(f"{key}={value}: a weight is not negative.")


def check_defaults(defaults: Mapping, known: Mapping) -> None:
    """Raises UserError where a class's `defaults` are none of a run: an unknown key, or another type."""
    keys = flat_keys({**known, "data": {"resampling": "soxr", **known["data"]}}, "defaults.")
    for key, value in flat_keys(defaults, "defaults.").items():
        if key.startswith(STAGES_OWN):
            continue
        if key not in keys:
            raise UserError(f"{defaults['stage']}: unknown key {key}{nearest(key, keys)}")
        if not (isinstance(value, Mapping) and isinstance(keys[key], Mapping)):
            check_type(key, keys[key], value, nullable=keys[key] is None)
            check_bounds(key, value)


def kind(value: object) -> str:
    """What a value is to a user, with its article."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if OmegaConf.is_list(value) or isinstance(value, list | tuple):
        return "a list"
    return "a section" if isinstance(value, Mapping) or OmegaConf.is_dict(value) else "text"


def check_type(key: str, old: object, new: object, nullable: bool) -> None:
    """A number stays a number, a list a list, a section a section. Raises UserError.

    nullable: whether the key may be null.
    """
    if old is not None and new is not None and kind(old) != kind(new):
        raise UserError(f"{key}={new}: {kind(old)} is needed, as in {key}={old}.")
    is_dataset = key.startswith("datasets.") and key.count(".") == 1
    if kind(old) == "a section" and (new is not None or not is_dataset):
        raise UserError(
            f"{key} is a section: set one of its keys" + SECTION_HINTS.get(key.split(".")[0], ".")
        )
    if new is None and not nullable and kind(old) != "a section":
        raise UserError(f"{key} cannot be null: {kind(old)} is needed, as in {key}={old}.")
    wanted = NULLABLE.get(key.rpartition(".")[2])
    if old is None and new is not None and wanted and kind(new) != wanted:
        raise UserError(f"{key}={new}: {wanted} or null is needed.")
