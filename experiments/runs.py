"""Runs: one training of one stage each, named by what it is, resumed where it stopped, done once."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import lightning
import torch
from filelock import FileLock, Timeout
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from callbacks.checkpoints import Best, Checkpoints, Deadline, StepSeeds, Threads, WholeFiles, check_whole
from callbacks.cost import Cost
from callbacks.curves import draw_curves
from callbacks.pictures import spared
from callbacks.progress import TrainingProgress
from datamodules.degradations import degradation
from datamodules.library import Library
from datamodules.pairs import Mixture, PairDataModule
from datamodules.store import Store
from experiments.configuration import duration, released_key
from experiments.page import write_page
from experiments.ranks import Ranks
from experiments.records import (
    cause,
    file_hash,
    identity_hash,
    known_hash,
    provenance,
    read_record,
    write_json,
    write_yaml,
)
from experiments.threads import choose_threads, chosen_by_user
from lightning_modules import find_stage, in_trusted_file, own_source
from lightning_modules.stage import Stage, Unfilled
from lightning_modules.super_resolver import SuperResolver
from signals import versions
from signals.errors import UserError
from signals.files import replacing

with torch.device("meta"):
    torch.empty(0)  # at its first use PyTorch notes what makes tensors; transformers replaces one at times


def trainer_options(config: Mapping, ranks: Ranks | None = None) -> dict:
    """Where and how fast; none of it names a run. Of one process on its own device, or of all `ranks`."""
    trainer, place = config["trainer"], (ranks or Ranks()).place
    options = {key: trainer[key] for key in ("accelerator", "precision")} | {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "plugins": [LightningEnvironment()],  # ours to start: not torchrun's or SLURM's to Lightning
    }
    return options | {"devices": place.local_size, "num_nodes": place.nodes}


def own_device(config: Mapping, ranks: Ranks) -> dict:
    """Of one process alone: it tests or checks on the device that it trains on."""
    on_gpu = config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available()
    return trainer_options(config) | {"devices": [ranks.place.local_rank] if on_gpu else 1}


def check_trainer(config: Mapping, ranks: Ranks) -> None:
    """Raises UserError on a device or precision that is not there, before anything is trained."""
    strategy = config["trainer"]["strategy"]
    if strategy != "auto" and not strategy.startswith("ddp"):
        raise UserError(f"trainer.strategy={strategy}: auto, or one of Lightning's that begin with ddp.")
    try:
        options = trainer_options(config, ranks) | {"strategy": strategy}
        lightning.Trainer(logger=False, enable_checkpointing=False, **options)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {cause(error)}") from None


def build_stage(run: Mapping, seed: int, rate: int, used: Mapping[str, Stage]) -> Stage:
    """The untrained stage of a run, the same for the same seed. rate: Hz, of a stage that is a method."""
    lightning.seed_everything(seed, workers=True, verbose=False)
    stage = find_stage(run["stage"])
    options = stage.resolved(run["options"]) | ({"rate": rate} if issubclass(stage, SuperResolver) else {})
    return stage(weights=run["weights"], optimizer=run["optimizer"], **options, **used)


def restored(folder: Path) -> Stage:
    """The stage of a finished run, from its folder and those of the runs that it uses, beside it.

    Raises UserError where there is no finished run, or its method is a file that is not trusted.
    """
    record = read_record(folder)
    if record is None or record["kind"] != "run":
        raise UserError(f"{folder} is not the folder of a finished run.")
    run = record["identity"]
    run = run | {"stage": in_trusted_file(run["stage"], run["source"], folder)}
    used = {part: restored(folder.parent / other) for part, other in run["uses"].items()}
    stage = build_stage(run, run["seed"], run["data"]["rate"], used)
    load_weights(stage, folder / "weights.safetensors")
    return stage.eval().requires_grad_(False)


def converted(config: Mapping, name: str, path: Path, stages: dict[str, Stage]) -> Stage:
    """The stage of a run, straight from a file of released weights; nothing is written.

    stages: by run, those that are there already; this one and those that it uses join them.
    """
    if name not in stages:
        run = config["runs"][name]
        used = {part: converted(config, other, path, stages) for part, other in run["uses"].items()}
        with Unfilled():  # critics stay so
            stage = build_stage(run, config["seed"], config["data"]["rate"], used)
        convert(stage, path, name)
        stages[name] = stage.eval().requires_grad_(False)
    return stages[name]


def convert(stage: Stage, path: Path, name: str) -> None:
    """Released weights into the stage of a run. Raises UserError where the file does not hold it."""
    try:
        stage.convert(path)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {name}: {str(error).splitlines()[-1].strip()}") from None


def load_weights(stage: Stage, path: Path) -> None:
    """Raises UserError where the file holds another stage or shape, or nothing that can be read."""
    name = f"{type(stage).__module__}.{type(stage).__name__}"
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("stage")
    except (SafetensorError, OSError):
        raise UserError(f"{path} is damaged or missing: remove {path.parent} to train it again.") from None
    if found != name:
        raise UserError(f"{path} holds {found or 'no stage of ours'}, not {name}: name another file.")
    try:
        stage.load_state_dict(load_file(path))
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        again = f"remove {path.parent} to train it again"
        raise UserError(f"{path} does not fit {name} ({again}): {why}") from None


def deadline(config: Mapping) -> Deadline:
    """When `trainer.max_time` from now is over."""
    limit = config["trainer"]["max_time"]
    return Deadline(None if limit is None else duration(limit))


@contextmanager
def alone(
    folder: Path, busy: str, report: Callable[[str], None], until: Deadline | None = None
) -> Iterator[None]:
    """Keeps other processes from `folder`, and waits for one that does; a killed one holds nothing.

    busy: reported once before waiting. until: then OutOfTime is raised.
    """
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / folder.name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report(busy)
        until = until or Deadline()
        while not lock.is_locked:
            until.check("waited for another process")
            with suppress(Timeout):
                lock.acquire(timeout=min(1.0, max(0.0, until.at - time.monotonic())))
    try:
        yield
    finally:
        lock.release()


class Runs:
    """The runs of a paper under one configuration. report: called with each line worth reading.

    until: the command's `deadline` (None: the configuration's, from now). ranks: the processes that train.
    """

    def __init__(
        self,
        paper: str,
        config: Mapping,
        library: Library,
        report: Callable[[str], None],
        until: Deadline | None = None,
        ranks: Ranks | None = None,
    ):
        self.paper, self.config, self.library, self.report = paper, config, library, report
        self.until, self.ranks = until or deadline(config), ranks or Ranks()
        self._stages: dict[str, Stage] = {}
        self._variants: dict[str, Runs] = {}

    def under(self, data: Mapping) -> "Runs":
        """The same runs, trained on what a protocol or a row makes of their data: degradation, resampling."""
        key = json.dumps(data, sort_keys=True)
        if data and key not in self._variants:
            runs = {
                name: {**run, "data": OmegaConf.to_container(OmegaConf.merge(run["data"], data))}
                for name, run in self.config["runs"].items()
            }
            config = {**self.config, "runs": runs}
            self._variants[key] = Runs(self.paper, config, self.library, self.report, self.until, self.ranks)
        return self._variants[key] if data else self

    def needs(self, name: str, above: tuple[str, ...] = ()) -> list[str]:
        """The runs that `name` stands on and itself, in the order in which they are trained."""
        if name in above:
            raise UserError(f"run {name} stands on itself: {' -> '.join((*above, name))}.")
        if name not in self.config["runs"]:
            raise UserError(f"{self.paper} has no run {name}: one of {', '.join(self.config['runs'])}.")
        run = self.config["runs"][name]
        order = []
        for other in [*run["uses"].values(), *([run["start"]] if run["start"] else []), None]:
            below = self.needs(other, (*above, name)) if other else [name]
            order += [n for n in below if n not in order]
        return order

    def check(self, name: str) -> None:
        """Raises UserError on numbers that do not fit together, before anything is trained."""
        for other in self.needs(name):
            run = self.config["runs"][other]
            if "released" in run:
                self.released(other)
                continue
            degradation(**run["data"]["degradation"])
            find_stage(run["stage"]).check_precision(str(self.config["trainer"]["precision"]))
            mixture, mixtures = run["data"]["mixture"], self.config["mixtures"]
            if mixture not in mixtures:
                raise UserError(f"no mixture {mixture}: one of {', '.join(mixtures)}.")
            if not any(part["weight"] > 0 for part in mixtures[mixture].values()):
                raise UserError(f"mixtures.{mixture} needs a part with a weight above 0.")
            if run["training"]["batch"] % self.ranks.size:
                raise UserError(
                    f"runs.{other}.training.batch={run['training']['batch']} is not to be shared by "
                    f"{self.ranks.size} processes: set it to a multiple, or trainer.scale=batch."
                )
            if run["training"]["steps"] % run["training"]["check_every"]:
                raise UserError(f"runs.{other}.training.steps must be a multiple of its check_every.")
            for part, used in run["uses"].items() if run["start"] else ():
                learnt = self.config["runs"][run["start"]]["uses"].get(part)
                if learnt != used:
                    raise UserError(
                        f"{other} starts from {run['start']}, which has learnt with {learnt}: "
                        f"set runs.{other}.uses.{part}={learnt}."
                    )

    def released(self, name: str) -> Path:
        """The file of its authors that a run is converted from, not trained. Raises UserError without it."""
        path, key = self.config["runs"][name]["released"], released_key(self.paper, name)
        if path is None:
            raise UserError(f"{name} is its authors' weights: set {key} to their file.")
        if not Path(path).expanduser().is_file():
            raise UserError(f"{key}={path}: no such file.")
        return Path(path).expanduser()

    def options(self, name: str) -> dict:
        """Of the stage, resolved."""
        run = self.config["runs"][name]
        return find_stage(run["stage"]).resolved(run["options"])

    # Data -------------------------------------------------------------------------------------------------

    def parts(self, name: str, split: str) -> dict[str, tuple[Store, float]]:
        data = self.config["runs"][name]["data"]
        mixture, resampling = self.config["mixtures"][data["mixture"]], data.get("resampling", "soxr")
        return self.library.mixture(self.config["data"]["rate"], split, mixture, resampling)

    def datamodule(self, name: str) -> PairDataModule:
        run, data = self.config["runs"][name], self.config["data"]
        held_out = Store.joined([store for store, _ in self.parts(name, "validation").values()])
        return PairDataModule(
            degradation(**run["data"]["degradation"]),
            rate=data["rate"],
            seed=self.config["seed"],
            batch=run["training"]["batch"],
            train=Mixture(self.parts(name, "train")),
            window=run["data"]["window"],
            steps=run["training"]["check_every"],
            pool=run["data"]["pool"],
            held_out=held_out.spread(data["held_out_files"]),
            held_out_windows=run["data"].get("held_out_windows"),
            peaks=run["data"].get("peaks", False),
            loaders=data["loaders"],
        )

    # Identity ---------------------------------------------------------------------------------------------

    def identity(self, name: str) -> dict:
        """All that the weights follow from: not devices, paths or loggers."""
        run = self.config["runs"][name]
        stage = find_stage(run["stage"])
        if "released" in run:
            rate = self.config["data"]["rate"] if issubclass(stage, SuperResolver) else None
            empty = {"weights": {}, "optimizer": {}, "training": {}, "start": None, "seed": 0}
            return {
                **empty,
                "uses": {part: identity_hash(self.identity(other)) for part, other in run["uses"].items()},
                "stage": run["stage"],
                "source": None,
                "versions": [stage.version],
                "options": self.options(name),
                "data": {"rate": rate},
                "released": known_hash(self.released(name)),
            }
        mixture = Mixture(self.parts(name, "train")).fingerprint
        uses = {part: identity_hash(self.identity(other)) for part, other in run["uses"].items()}
        start = identity_hash(self.identity(run["start"])) if run["start"] else None
        data = {"rate": self.config["data"]["rate"], **run["data"], "mixture": mixture}
        own = {key: run[key] for key in ("stage", "weights", "optimizer", "training")}
        own["training"] = {k: v for k, v in run["training"].items() if (k, v) != ("accumulate", 1)}
        own |= {"source": own_source(run["stage"])}
        own |= {"versions": [stage.version, versions.DEGRADATIONS]}
        return {
            **own,
            "options": self.options(name),
            "data": data,
            "uses": uses,
            "start": start,
            "seed": self.config["seed"],
        }

    def folder(self, name: str) -> Path:
        return Path(self.config["output"]) / self.paper / identity_hash(self.identity(name))

    # Training ---------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Stage:
        """The trained stage of a run: loaded where it is finished, trained or resumed where not."""
        if name not in self._stages:
            folder = self.folder(name)
            stage = self.finished(name, folder)
            if stage is None and self.ranks.place.rank:
                raise UserError(
                    f"{folder} of rank 0 is not seen here: do all machines share {folder.parent}?"
                )
            if stage is None:
                busy = f"run {name} {folder.name}: another process trains it, waiting"
                with alone(folder, busy, self.report, self.until):  # which may have finished it then
                    make = self.convert if "released" in self.config["runs"][name] else self.train
                    stage = self.finished(name, folder) or make(name, folder)
            # The weights stay; optimiser states are three times their size.
            (folder / "last.ckpt").unlink(missing_ok=True)
            self._stages[name] = stage.eval().requires_grad_(False)
        return self._stages[name]

    def finished(self, name: str, folder: Path) -> Stage | None:
        """The stage of a run that needs no training; None where it is still to do."""
        record = read_record(folder)
        if record is None:
            return None
        when = record["provenance"]["finished"]
        self.report(f"run {name} {folder.name}: finished {when}, nothing to do")
        stage = self.untrained(name)
        load_weights(stage, folder / "weights.safetensors")
        return stage

    def untrained(self, name: str) -> Stage:
        run = self.config["runs"][name]
        used = {part: self.stage(other) for part, other in run["uses"].items()}
        return build_stage(run, self.config["seed"], self.config["data"]["rate"], used)

    def convert(self, name: str, folder: Path) -> Stage:
        """Brings released weights into a run of ours, which then is used like a trained one.

        Raises UserError where the file does not hold this stage, to the last name and shape.
        """
        path, started = self.released(name), time.perf_counter()
        stage = self.untrained(name)
        convert(stage, path, name)
        self.report(f"run {name} {folder.name}: converted from {path}")
        self.begin(folder)
        self.keep(name, folder, stage, {}, time.perf_counter() - started)
        return stage

    def begin(self, folder: Path) -> None:
        """Writes the resolved configuration of what is to follow."""
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "config.yaml", self.config)

    def check_time(self, otherwise: str) -> None:
        """Raises OutOfTime, which says what is `otherwise`, where the command's time is over."""
        self.until.check(otherwise)

    def train(self, name: str, folder: Path) -> Stage:
        """Trains (or goes on with) a run and leaves its weights, curves and record in `folder`.

        Raises OutOfTime, with a checkpoint left, where the command's time is over before it is trained.
        """
        from experiments.tracking import loggers  # which stands on this module

        self.check_time("not begun")
        checkpoint, best = folder / "last.ckpt", folder / "best.ckpt"
        check_whole(checkpoint)
        check_whole(best)
        parts = self.parts(name, "train").items()
        told = ", ".join(f"{part} {store.hours:.2f} h, weight {weight}" for part, (store, weight) in parts)
        batch, size = self.config["runs"][name]["training"]["batch"], self.ranks.size
        many = f"; batches of {batch} by {size} processes" if size > 1 else ""
        self.report(f"run {name} {folder.name}: trains on {told}{many}")
        self.begin(folder)
        stage, data = self.beginning(name), self.datamodule(name)
        if resume := checkpoint.is_file():
            self.report(f"run {name} {folder.name}: goes on from its last checkpoint")
        else:
            best.unlink(missing_ok=True)  # of another beginning
        chosen = loggers(folder, name, self.report)
        training, cost = self.config["runs"][name]["training"], Cost()
        watching = [TrainingProgress(name, training["steps"]), cost]
        fit = partial(self.fit, name, stage, data, folder, resume, watching, chosen)
        asked = (self.paper, self.config, name, resume)
        told = self.ranks.together(fit, fit_along, *asked, in_step=True)
        if len(set(told)) > 1:  # nothing of it can be trusted
            checkpoint.unlink(missing_ok=True)
            best.unlink(missing_ok=True)
            raise UserError("the processes ended with different weights; the same command begins anew")
        if best.is_file():  # not, where all diverged
            stage.load_state_dict(torch.load(best, weights_only=True))
        self.finish(name, folder, stage, data, cost)
        best.unlink(missing_ok=True)
        return stage

    def beginning(self, name: str) -> Stage:
        """The stage of a run as its training begins."""
        stage, start = self.untrained(name), self.config["runs"][name]["start"]
        if start:
            self.stage(start)
            load_weights(stage, self.folder(start) / "weights.safetensors")
            stage.batches_seen.zero_()  # its own batches, decay and progress
        return stage

    def fit(
        self,
        name: str,
        stage: Stage,
        data: PairDataModule,
        folder: Path,
        resume: bool,
        watching: Iterable[lightning.Callback] = (),
        loggers: Iterable[Logger] | bool = False,
    ) -> str:
        """Trains in place, with all ranks. resume: from the last checkpoint.

        Returns a hash of the parameters, which is the same on all ranks.
        """
        training, checkpoint = self.config["runs"][name]["training"], folder / "last.ckpt"
        save_every = self.config["trainer"]["save_every"]
        choose_threads(self.config, self.ranks.place.local_size)
        callbacks = [
            StepSeeds(self.config["seed"]),
            Threads(fixed=chosen_by_user()),
            *watching,
            *([Best(folder / "best.ckpt")] if training.get("best") else []),
            Checkpoints(checkpoint, save_every, self.until, self.ranks.agree),
        ]
        options = trainer_options(self.config, self.ranks) | {"strategy": self.strategy(stage)}
        options["plugins"] = [*options["plugins"], WholeFiles()]
        if self.ranks.size > 1:
            from lightning_modules.ranks import JoinedBatchNorm

            options["plugins"].append(JoinedBatchNorm())
        trainer = lightning.Trainer(
            max_epochs=training["steps"] // training["check_every"],
            limit_train_batches=training["check_every"],
            accumulate_grad_batches=training.get("accumulate", 1),
            num_sanity_val_steps=0,
            log_every_n_steps=max(1, training["check_every"] // 10),
            logger=loggers,
            callbacks=callbacks,
            enable_checkpointing=False,
            **options,
        )
        begun = {"ckpt_path": str(checkpoint), "weights_only": True} if resume else {}
        trainer.fit(stage, datamodule=data, **begun)
        return parameter_hash(stage)

    def strategy(self, stage: Stage) -> str:
        """Lightning's name of how the ranks train together."""
        if self.ranks.size > 1 and self.config["trainer"]["strategy"] == "auto":
            return "ddp_find_unused_parameters_true" if stage.finds_unused else "ddp"
        return self.config["trainer"]["strategy"]

    def finish(self, name: str, folder: Path, stage: Stage, data: PairDataModule, cost: Cost) -> None:
        """Held-out measures against the untrained stage and the constant, then weights, curves, record."""
        trained = self.held_out(stage, data)
        fresh = self.untrained(name)
        for ours, theirs in zip(fresh.modules(), stage.modules(), strict=True):
            if not isinstance(ours, torch.nn.modules.batchnorm._BatchNorm):  # whose are part of the network
                for buffer, learnt in zip(
                    ours.buffers(recurse=False), theirs.buffers(recurse=False), strict=True
                ):
                    buffer.copy_(learnt)  # the latent's scale, the mean mel: the same yardstick for both
        measures = {
            "trained": trained["held_out/model"],
            "untrained": self.held_out(fresh, data)["held_out/model"],
            "constant": trained["held_out/constant"],
        }
        if start := self.config["runs"][name]["start"]:
            measures["start"] = self.held_out(self.stage(start), data)["held_out/model"]
        if not all(value == value and abs(value) < float("inf") for value in measures.values()):
            raise UserError(f"run {name} diverged ({measures}): lower runs.{name}.optimizer.lr.")
        with spared(f"run {name}: its curves", self.report):
            draw_curves(folder, f"{self.paper} {name} {folder.name}")
        self.keep(name, folder, stage, measures, cost.seconds, cost.steps_per_second, cost.memory)
        told = ", ".join(f"{kind} {value:.4g}" for kind, value in measures.items())
        self.report(f"run {name} {folder.name}: held-out error {told}")

    def keep(
        self,
        name: str,
        folder: Path,
        stage: Stage,
        measures: Mapping,
        seconds: float,
        steps_per_second: float | None = None,
        memory: int | None = None,
    ) -> None:
        """Writes weights and record: then the run is finished. memory: bytes at the peak of its training."""
        stage_name = f"{type(stage).__module__}.{type(stage).__name__}"
        weights = {key: tensor.contiguous() for key, tensor in stage.state_dict().items()}
        with replacing(folder / "weights.safetensors") as file:
            save_file(weights, file, {"stage": stage_name, "run": folder.name})
        parameters = sum(p.numel() for p in stage.network.parameters())
        record = {
            "kind": "run",
            "paper": self.paper,
            "run": name,
            "id": folder.name,
            "preset": "full" if "released" in self.config["runs"][name] else self.config["preset"],
            "identity": self.identity(name),
            "parameters": parameters,
            "held_out": measures,
            "weights": file_hash(folder / "weights.safetensors"),
            "seconds": round(seconds, 3),
            "steps_per_second": steps_per_second and round(steps_per_second, 4),
            "memory": memory,
            "processes": 1 if steps_per_second is None else self.ranks.size,
            "threads": torch.get_num_threads(),
            "provenance": provenance(),
        }
        write_json(folder / "record.json", record)
        write_page(folder)

    def held_out(self, stage: Stage, data: PairDataModule) -> dict[str, float]:
        options = own_device(self.config, self.ranks)
        trainer = lightning.Trainer(logger=False, enable_checkpointing=False, **options)
        return trainer.validate(stage, datamodule=data, verbose=False)[0]


def fit_along(ranks: Ranks, paper: str, config: Mapping, name: str, resume: bool) -> str:
    """What the other ranks do while rank 0 trains a run."""
    library = Library.of(config["data"], report=lambda line: None)
    runs = Runs(paper, config, library, lambda line: None, Deadline(), ranks)
    return runs.fit(name, runs.beginning(name), runs.datamodule(name), runs.folder(name), resume)


def parameter_hash(stage: Stage) -> str:
    """SHA-256 of the parameters, bit by bit."""
    found = hashlib.sha256()
    for parameter in stage.parameters():
        found.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def count_parameters(config: Mapping, name: str, known: dict[str, Stage] | None = None) -> tuple[int, Stage]:
    """Parameters of a run's network, and its stage, on the meta device: nothing is allocated.

    known: by run, stages that were made so before; this one and those that it uses join them.
    """
    known = {} if known is None else known
    if name not in known:
        run = config["runs"][name]
        used = {part: count_parameters(config, other, known)[1] for part, other in run["uses"].items()}
        with torch.device("meta"):
            known[name] = build_stage(run, config["seed"], config["data"]["rate"], used)
    return sum(p.numel() for p in known[name].network.parameters()), known[name]
