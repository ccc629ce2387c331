"""Batch statistics over all processes, so that a divided batch trains as a whole one does."""

import torch
from torch import Tensor, nn

from kdedge.distill.machine.group import Group

__all__ = ["synchronise"]


class _Synchronised(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of the whole batch; on any device.

    PyTorch's own `SyncBatchNorm` needs CUDA.
    """

    group: Group

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        # In two exchanges: the difference of a mean square and a squared mean would lose digits.
        mean = self.group.total(x.mean(dim=(0, 2, 3))) / self.group.size
        centred = x - mean[:, None, None]
        variance = self.group.total(centred.square().mean(dim=(0, 2, 3))) / self.group.size
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), self.group.size * x.numel() / x.shape[1])
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def synchronise(model: nn.Module, group: Group) -> None:
    """Give every `BatchNorm2d` of a model the statistics of all processes; names and tensors stay what they are."""
    if group.size == 1:
        return
    for path, layer in list(model.named_modules()):
        if type(layer) is nn.BatchNorm2d:
            synchronised = _Synchronised(
                layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
            )
            synchronised.load_state_dict(layer.state_dict())
            synchronised.group = group
            synchronised.train(layer.training)
            model.set_submodule(path, synchronised)
