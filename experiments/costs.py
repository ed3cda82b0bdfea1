"""What a number cost: hours of training, steps per second, memory and the real-time factor, from records."""

from collections.abc import Iterable, Mapping
from math import floor, log10

# Of a printed table, and the fields of the CSV behind them.
COLUMNS = {
    "train h": "hours",
    "steps/s": "steps_per_second",
    "GiB": "memory_gib",
    "RTF": "real_time_factor",
}


def behind(scores: Iterable[Mapping], runs: Mapping[str, Mapping]) -> list[Mapping]:
    """Records of scores, and those of all runs that they stand on, each once. runs: by id.

    A run that is no longer there is a record of nothing but its id.
    """
    found = {score["id"]: score for score in scores}
    waiting = [id_ for score in found.values() for id_ in score["runs"].values()]
    while waiting:
        id_ = waiting.pop()
        if id_ not in found:
            found[id_] = runs.get(id_, {"kind": "run", "id": id_})
            identity = found[id_].get("identity", {"uses": {}, "start": None})
            waiting += [*identity["uses"].values(), *filter(None, [identity["start"]])]
    return list(found.values())


def cost(records: Iterable[Mapping]) -> dict[str, float | None]:
    """Hours of training, its steps per second, GiB at the peak of training or test, and seconds of testing a
    second of audio, of all these records together: None where there are none, or one does not say.

    Converted runs were not trained here; of older runs it is not known what they took over all resumes.
    """
    records = {record["id"]: record for record in records}.values()
    scores = [record for record in records if record["kind"] == "score"]
    trained = [r for r in records if r["kind"] == "run" and "released" not in r.get("identity", {})]

    def told(of: list[Mapping], *keys: str) -> bool:
        return bool(of) and all(record.get(key) is not None for record in of for key in keys)

    hours = steps_per_second = memory = factor = None
    if told(trained, "steps_per_second"):
        seconds = sum(run["seconds"] for run in trained)
        hours = seconds / 3600
        steps_per_second = sum(run["seconds"] * run["steps_per_second"] for run in trained) / seconds
    if told([*trained, *scores], "memory"):
        memory = max(record["memory"] for record in [*trained, *scores]) / 2**30
    if told(scores, "seconds", "audio_seconds"):
        factor = sum(r["seconds"] for r in scores) / sum(r["audio_seconds"] for r in scores)
    return dict(zip(COLUMNS.values(), (hours, steps_per_second, memory, factor), strict=True))


def rounded(value: float | None) -> str:
    """Three digits, and not more than four of them decimals; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.{min(4, max(0, 2 - floor(log10(value))))}f}" if value > 0 else "0"
