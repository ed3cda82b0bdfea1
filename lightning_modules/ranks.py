"""Several processes that train together (DDP): what couples the items of a step is taken over all of them.

Each process (rank) has an equal part of the step's items, and gradients are averaged over ranks: exact for
a mean over items. What is none of that (a sum, a norm or a ratio over the batch, the moments of a batch
normalisation) goes through `over_ranks`; so does what a stage gathers in buffers, which DDP would otherwise
overwrite by rank 0's.
"""

import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def rank_of() -> tuple[int, int]:
    """This process, and how many there are: item i of a rank is item i * how many + rank of the step."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def over_ranks(part: Tensor) -> Tensor:
    """The sum of `part` over all ranks, the same on each; of one process, `part` itself.

    Differentiable: where every rank's loss is made of such sums, the mean of their gradients is the gradient
    of what one process would have of the joined batch. Only for training steps, which all ranks take
    together: never in `held_out` or in use, where one may be alone, and wait for the others for ever.
    """
    if rank_of()[1] == 1:
        return part
    from torch.distributed.nn.functional import all_reduce  # not in every build of PyTorch

    return all_reduce(part)


def norm_over_ranks(part: Tensor) -> Tensor:
    """The norm of what all ranks have, from the norm of each; see `over_ranks`."""
    if rank_of()[1] == 1:
        return part
    square = over_ranks(part.square())
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), 0)  # or zeros had an infinite gradient


class JoinedNorm(_BatchNorm):
    """Batch normalisation by the moments of all ranks' items, on any device; otherwise as PyTorch's."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # the class that it stands in for is of one number of dimensions; here all are alike

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same."""
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = over_ranks(torch.tensor(x.numel() / x.shape[1], device=x.device))

        def mean(values: Tensor) -> Tensor:
            return over_ranks(values.sum(axes, keepdim=True)) / count

        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        average = mean(wide)
        centred = wide - average
        variance = mean(centred.square())
        if self.track_running_stats:
            self.num_batches_tracked += 1
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            kept = (self.running_mean, average), (self.running_var, variance * count / (count - 1))
            for moments, new in kept:
                moments.lerp_(new.detach().flatten().to(moments), momentum)
        out = centred * (variance + self.eps).rsqrt()
        if self.affine:
            shape = [1, -1] + [1] * (x.ndim - 2)
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)


class JoinedBatchNorm(TorchSyncBatchNorm):
    """A plugin of the trainer: while it trains, all batch normalisations are of the joined batch.

    On a GPU they are PyTorch's own SyncBatchNorm, which has none for a CPU; there `JoinedNorm`. Names and
    values of the state stay as they are.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """model: a stage with its trainer."""
        self.classes = None
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        # In place: parameters, buffers and mode stay what everything else refers to.
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self.classes = [(module, type(module)) for module in norms]
        for module in norms:
            module.__class__ = JoinedNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        if self.classes is None:
            return super().revert(model)
        for module, was in self.classes:
            module.__class__ = was
        return model
