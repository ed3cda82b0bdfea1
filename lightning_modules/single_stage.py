"""A method that is one training: stage and super-resolver in one class, as most papers' methods are."""

from collections.abc import Mapping

from torch import Tensor

from lightning_modules.stage import Stage
from lightning_modules.super_resolver import SuperResolver, raise_rate
from signals.types import Pair, Signal, valid


class SingleStage(Stage, SuperResolver):
    """A subclass gives `losses(pair)` for training and `resolve(low, ...)` for use."""

    def __init__(self, weights: Mapping[str, float], optimizer: Mapping, rate: int):
        super().__init__(weights, optimizer, rate=rate)

    def heard(self, pair: Pair) -> Signal:
        """The input as `resolve` gets it: at `rate`, or as it came where the method raises the rate itself.

        As long as the reference: a lower rate's last sample may reach beyond that.
        """
        if self.upsample == "none":
            return pair.low
        raised, samples = raise_rate(pair.low, self.rate, self.upsample), pair.high.wave.shape[-1]
        return raised._replace(wave=raised.wave[..., :samples], lengths=raised.lengths.clamp(max=samples))

    def held_out(self, pair: Pair) -> dict[str, Tensor]:
        """Mean squared error of the estimate; the constant is silence."""
        estimate, reference = self.test_step(pair, 0), pair.high.wave
        samples = min(estimate.wave.shape[-1], reference.shape[-1])
        error = (estimate.wave[..., :samples] - reference[..., :samples]).square()
        inside = valid(estimate.lengths, samples)[:, None]

        def mean(squares: Tensor) -> Tensor:
            return (squares * inside).sum((1, 2)) / estimate.lengths

        return {"model": mean(error), "constant": mean(reference[..., :samples].square())}
