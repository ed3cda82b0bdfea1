"""The options of corpora as keys of a configuration: `datasets.vctk.release`, though no page lists it."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import NoneType, UnionType
from typing import NamedTuple, Union, get_args, get_origin, get_type_hints

from datamodules.corpora import CORPORA, Missing, select
from experiments.configuration import kind
from signals.errors import UserError

KINDS = {str: "text", int: "a number", float: "a number", dict: "a section", Iterable: "a list"}


class Option(NamedTuple):
    """What an option of a corpus may be: kinds as `configuration.kind` names them, and its default."""

    kinds: tuple[str, ...]
    nullable: bool
    default: object

    def read(self, key: str, value: object, text: str) -> object:
        """The value of `key=text`, a number as text where text is needed. Raises UserError."""
        if kind(value) not in self.kinds and "text" in self.kinds and isinstance(value, int | float):
            return text
        if value is None and not self.nullable:
            raise UserError(f"{key} cannot be null: {' or '.join(self.kinds)} is needed.")
        if value is not None and kind(value) not in self.kinds:
            null = " or null" if self.nullable else ""
            raise UserError(f"{key}={text}: {' or '.join(self.kinds)}{null} is needed.")
        return value


@cache
def options_of(corpus: str) -> Mapping[str, Option]:
    """Every option of a corpus, and its `root`, by name."""
    function = CORPORA[corpus]
    hints = get_type_hints(function)
    options = {
        parameter.name: option_of(hints[parameter.name], parameter.default)
        for parameter in list(inspect.signature(function).parameters.values())[2:]  # after root and split
    }
    return options | {"root": option_of(get_type_hints(select)["root"], None)}


def option_of(hint: object, default: object) -> Option:
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = [getattr(get_origin(one) or one, "__name__", "") for one in types]
    kinds = {told: None for type_, told in KINDS.items() if type_.__name__ in plain}
    return Option(tuple(kinds), NoneType in types, [*default] if isinstance(default, tuple) else default)


def sections(config: Mapping) -> dict[str, Mapping]:
    """What names a corpus, by its key: test sets, parts of mixtures, and their stand-ins."""
    found = {f"datasets.{name}": dataset for name, dataset in config.get("datasets", {}).items()}
    for mixture, parts in config.get("mixtures", {}).items():
        found |= {f"mixtures.{mixture}.{name}": part for name, part in parts.items()}
    found = {key: section for key, section in found.items() if section and section.get("corpus") in CORPORA}
    for key, section in list(found.items()):
        if isinstance(stand_in := section.get("stand_in"), Mapping):
            found[f"{key}.stand_in"] = {"corpus": "folder", **stand_in}
    return found


def option_keys(config: Mapping) -> dict[str, Option]:
    """Every option of every corpus that a configuration names, by its key."""
    return {
        f"{key}.{name}": option
        for key, section in sections(config).items()
        for name, option in options_of(section["corpus"]).items()
        if name != "root" or not key.endswith(".stand_in")  # which lies where the corpus would
    }


def keys_for(config: Mapping, corpus: str, option: str, value: str) -> str:
    """How a user sets an option of a corpus, wherever the configuration names this corpus."""
    if own := config.get("corpus"):  # the file of --corpus
        return f'{option}: "{value}" in {own}'
    if option in config:  # a key that the corpora of this paper refer to
        return f"{option}={value}"
    named = (key for key, section in sections(config).items() if section["corpus"] == corpus)
    return " ".join(f"{key}.{option}={value}" for key in named)


@contextmanager
def spelling(config: Mapping) -> Iterator[None]:
    """A block in which a corpus may be missing: what would help is said in the configuration's own keys."""
    try:
        yield
    except Missing as missing:
        raise spelled(missing, config) from None


def spelled(missing: Missing, config: Mapping) -> Missing:
    if not missing.helps:
        return missing
    corpus, option, value = missing.helps
    told = str(missing).replace(f"set {option}={value}", f"set {keys_for(config, corpus, option, value)}")
    return Missing(told, missing.fetch)
