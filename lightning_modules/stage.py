"""What learns: a stage is a part of a method that is trained alone, by named losses with weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.overrides import TorchFunctionMode

from signals.errors import UserError
from signals.types import Pair


def noise(shape: Iterable[int], seeds: Tensor, salt: int = 0) -> Tensor:
    """Standard normal [B, *shape], each item from its own seed [B]: the same in any batch, on any device.

    salt: tells apart what is drawn twice for one item (two noises of a step, or two steps).
    """
    return torch.stack([torch.randn(*shape, generator=g) for g in _generators(seeds, salt)]).to(seeds.device)


def endless_noise(shape: Iterable[int], seeds: Tensor, firsts: Tensor, block: int, salt: int = 0) -> Tensor:
    """Standard normal [B, C, N, ...], shape [C, N, ...]: from `firsts` [B] on of a noise endless in N.

    Each seed [B] has one such noise, drawn `block` at a time, so that it is the same in whatever it is cut.
    """
    channels, count, *rest = shape
    blocks = [
        noise((channels, block, *rest), seeds + ((firsts // block + number) << 32), salt)
        for number in range(-(-count // block) + 1)
    ]
    drawn, offsets = torch.cat(blocks, dim=2), (firsts % block).tolist()
    return torch.stack([one[:, o : o + count] for one, o in zip(drawn, offsets, strict=True)])


def uniform(seeds: Tensor, salt: int = 0, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform [0, 1) numbers [B, *shape], each item's from its own seed."""
    return torch.stack([torch.rand(shape, generator=g) for g in _generators(seeds, salt)]).to(seeds.device)


def _generators(seeds: Tensor, salt: int) -> list[torch.Generator]:
    # PyTorch's CPU generator reads the low 32 bits of its seed only: all bits are mixed into them first (the
    # salt before the seed, which can be one word of 32 bits or two).
    mixed = [np.random.SeedSequence([salt, seed % 2**64]).generate_state(1)[0] for seed in seeds.tolist()]
    return [torch.Generator().manual_seed(int(state)) for state in mixed]


class Unfilled(TorchFunctionMode):
    """Under it, networks begin as whatever was in their memory, at no cost: for those filled next."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, ours = kwargs or {}, (Tensor.uniform_, Tensor.normal_)
        if func in ours or getattr(func, "__module__", "") == "torch.nn.init":
            return [*args, *kwargs.values()][0]
        return func(*args, **kwargs)


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The network's state becomes these tensors, numbers in float32; what a mapped file holds stays there.

    Raises RuntimeError, as `load_state_dict`, where they are another network's.
    """
    single = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(single, assign=True)


class Stage(lightning.LightningModule):
    """One training. A subclass gives `losses(pair)`, named terms, each a mean over the items of the batch.

    Several processes have a part of the batch each, and average their gradients: a term that is no such mean
    (a sum, a norm over the batch), and what is gathered in buffers, goes through `ranks.over_ranks`.

    weights: of the loss terms, by name. optimizer: `lr`, `betas`, `weight_decay`, `warmup` (steps of linear
    rise), `decay` (factor on the rate, every `decay_every` batches), `clip` (gradient norm; 0: none); and, in
    the place of the rise and decay, `schedule`: `{name: polynomial, power, last, steps}`, from `lr` to `last`
    by (1 - step / steps)^power; or `{name: plateau, factor, patience}`, a factor on the rate where
    `held_out/model` did not fall for more than so many checks.
    `batches_seen` counts training batches: it is saved, so what follows from it is the same after a resume.
    """

    version = 1  # raised whenever the same settings make other weights: runs made before are made again
    defaults: Mapping = {}  # where a configuration says nothing: weights, optimizer, options, training, data
    finds_unused = False  # whether there are steps in which some parameters get no gradient

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, **rest):
        super().__init__(**rest)  # of a method that is a stage itself
        self.weights, self.optimizer = dict(weights), dict(optimizer)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.long))
        self.plateau: ReduceLROnPlateau | None = None
        self.plateau_state: dict = {}

    @classmethod
    def resolved(cls, options: Mapping) -> dict:
        """`options` with all that they leave open filled in, and nothing that training does not see."""
        return dict(options)

    @classmethod
    def converted(cls, path: Path) -> dict[str, Tensor]:
        """The state of `network` from a file of weights that its authors released, every name accounted for.

        Raises UserError where the file is none.
        """
        raise UserError(f"{cls.__name__} knows no released weights.")

    def convert(self, path: Path) -> None:
        """Fills the stage with what is in such a file: `network`, and whatever else it is used with.

        Raises RuntimeError, as `load_state_dict`, where the file holds another network.
        """
        fill(self.network, self.converted(path))

    @property
    def network(self) -> nn.Module:
        """What the stage leaves to its method; its parameters are the ones that papers count."""
        return self

    def example(self, batch: int, samples: int) -> tuple | None:
        """Arguments of `network` for so many windows of so many samples, to count its work by, if known."""
        return None

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        raise NotImplementedError

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """What the stage is judged by on recordings it never saw: `model` and, for scale, `constant`.

        Both [B], the lower the better; `constant` is the same measure of the best answer that ignores the
        input (a training mean, or zero).
        """
        raise NotImplementedError

    @classmethod
    def check_precision(cls, precision: str) -> None:
        """Raises UserError on a precision (Lightning's names) in which the stage cannot be trained."""

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of named terms, which are logged. Raises UserError on a term without a weight."""
        unknown = set(terms) - set(self.weights)
        if unknown:
            raise UserError(
                f"{type(self).__name__} has no weight for the loss terms {', '.join(sorted(unknown))}."
            )
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, prog_bar=True)
        return sum(self.weights[name] * term for name, term in terms.items())

    def training_step(self, pair: Pair, _: int) -> Tensor:
        loss = self.weigh(self.losses(pair))
        self.batches_seen += 1
        return loss

    def validation_step(self, pair: Pair, _: int) -> None:
        for name, values in self.held_out(pair).items():
            self.log(f"held_out/{name}", values.mean(), batch_size=len(values), sync_dist=True)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> tuple[torch.optim.Optimizer, object]:
        """AdamW and its learning rate, by step or by check. Raises UserError on an unknown schedule."""
        settings = self.optimizer
        adam = torch.optim.AdamW(
            parameters, settings["lr"], tuple(settings["betas"]), weight_decay=settings["weight_decay"]
        )
        schedule = dict(settings.get("schedule") or {})
        name = schedule.pop("name", None)
        if name == "polynomial":
            return adam, polynomial(adam, **schedule)
        if name == "plateau":
            return adam, ReduceLROnPlateau(adam, **schedule)
        if name is not None:
            raise UserError(f"schedule {name}: polynomial or plateau.")

        def factor(step: int) -> float:
            times = int(self.batches_seen) // settings["decay_every"]  # batches: a generator may step seldom
            return min(1.0, (step + 1) / max(1, settings["warmup"])) * settings["decay"] ** times

        return adam, LambdaLR(adam, factor)

    def configure_optimizers(self):
        adam, schedule = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        if isinstance(schedule, ReduceLROnPlateau):
            self.plateau = schedule
            self.plateau.load_state_dict(self.plateau_state)
            return adam
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # By Lightning, a plateau would be looked at after the epoch's checkpoint, and a resume would skip that.

    def on_validation_end(self) -> None:
        if self.plateau and self.trainer.state.fn == "fit":
            self.plateau.step(self.trainer.callback_metrics["held_out/model"])

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        if self.plateau:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.plateau_state = checkpoint.get("plateau", {})

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip(optimizer)

    def clip(self, optimizer: torch.optim.Optimizer) -> None:
        if self.optimizer["clip"]:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.optimizer["clip"])


def polynomial(optimizer: torch.optim.Optimizer, power: float, last: float, steps: int) -> LambdaLR:
    """The learning rate falls to `last` over so many steps, and stays there."""
    first = optimizer.param_groups[0]["lr"]

    def factor(step: int) -> float:
        return (last + (first - last) * (1 - min(step / steps, 1)) ** power) / first

    return LambdaLR(optimizer, factor)


class AdversarialStage(Stage):
    """Generator against critic, by hand, written once for all adversarial methods.

    A subclass names its networks `generator` and `critic` and gives `generate(pair)`, `critic_losses` and
    `generator_losses`. The generator steps on every `n_critic`-th batch, the first included, and the critic
    on all from batch `critic_from` on; until then `generator_losses` is called with `adversarial=False`.
    Counting is by `batches_seen`: Lightning's global_step counts the steps of both optimisers.
    """

    finds_unused = True  # one side's, when the other steps

    def __init__(
        self,
        weights: Mapping[str, float],
        optimizer: Mapping,
        n_critic: int = 1,
        critic_from: int = 0,
        **rest,
    ):
        super().__init__(weights, optimizer, **rest)
        self.automatic_optimization = False
        self.n_critic, self.critic_from = n_critic, critic_from
        self.generator: nn.Module
        self.critic: nn.Module

    @property
    def network(self) -> nn.Module:
        return self.generator

    @classmethod
    def check_precision(cls, precision: str) -> None:
        """By hand, gradients are clipped and penalised unscaled: raises UserError in half precision."""
        if precision.startswith("16"):
            raise UserError(
                f"{cls.__name__} cannot be trained in {precision}: "
                "set trainer.precision to bf16-mixed or 32-true."
            )

    def generate(self, pair: Pair):
        """Whatever both sides need of the generator's work on this batch."""
        raise NotImplementedError

    def critic_losses(self, pair: Pair, made) -> dict[str, Tensor]:
        """Terms of the critic; what was generated passes no gradient."""
        raise NotImplementedError

    def generator_losses(self, pair: Pair, made, adversarial: bool) -> dict[str, Tensor]:
        raise NotImplementedError

    def losses(self, pair: Pair) -> dict[str, Tensor]:
        """All terms of both sides, as one step would see them."""
        made = self.generate(pair)
        return self.critic_losses(pair, made) | self.generator_losses(pair, made, adversarial=True)

    def training_step(self, pair: Pair, _: int) -> None:
        optimizers, schedules = self.optimizers(), self.lr_schedulers()
        adversarial = bool(self.batches_seen >= self.critic_from)
        generators_turn = bool(self.batches_seen % self.n_critic == 0)
        with torch.set_grad_enabled(generators_turn):
            made = self.generate(pair)
        if adversarial:
            self._step(optimizers[1], self.weigh(self.critic_losses(pair, made)))
        if generators_turn:
            self.critic.requires_grad_(False)
            self._step(optimizers[0], self.weigh(self.generator_losses(pair, made, adversarial)))
            self.critic.requires_grad_(True)
        self.batches_seen += 1
        for schedule, has_stepped in zip(schedules, (generators_turn, adversarial), strict=True):
            if has_stepped:
                schedule.step()

    def _step(self, optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip(optimizer)
        optimizer.step()

    def configure_optimizers(self):
        sides = [self.make_optimizer(side.parameters()) for side in (self.generator, self.critic)]
        if any(isinstance(schedule, ReduceLROnPlateau) for _, schedule in sides):
            raise UserError("schedule plateau: two sides have none in common; polynomial, or none.")
        return [adam for adam, _ in sides], [schedule for _, schedule in sides]
