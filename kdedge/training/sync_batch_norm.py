"""Batch statistics over all processes, so that a divided batch trains as a whole one does."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdedge.training.distributed import Group
from kdedge_runtime.errors import UsageError

__all__ = ["synchronise"]


class _Synchronised(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose mean and variance in training are those of the whole batch; on any device.

    PyTorch's own `SyncBatchNorm` needs CUDA.
    """

    group: Group
    following: list[nn.Module]
    """What timm's kind does after normalising; in a plain list, so that names stay what they are."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return self._go_on(super().forward(input))
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
        return self._go_on(normalised.to(input.dtype))

    def _go_on(self, x: Tensor) -> Tensor:
        for layer in self.following:
            x = layer.train(self.training)(x)
        return x

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def synchronise(model: nn.Module, group: Group) -> None:
    """Give every batch normalisation of a model the statistics of all processes; names and tensors stay what they are.

    Raises:
        UsageError: the model has a kind of batch normalisation that is not known here.
    """
    if group.size == 1:
        return
    for path, layer in list(model.named_modules()):
        if isinstance(layer, _BatchNorm):
            model.set_submodule(path, _synchronised(path, layer, group))


def _synchronised(path: str, layer: _BatchNorm, group: Group) -> _Synchronised:
    # timm's BatchNormAct2d goes on with dropping out and an activation.
    goes_on = [part for name in ("drop", "act") if isinstance(part := getattr(layer, name, None), nn.Module)]
    if not isinstance(layer, nn.BatchNorm2d) or (type(layer) is not nn.BatchNorm2d and len(goes_on) != 2):
        raise UsageError(
            f"The layer {path} is a {type(layer).__name__}, whose statistics cannot be shared between processes. "
            "Train this network in one process."
        )
    synchronised = _Synchronised(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    synchronised.load_state_dict(layer.state_dict())
    synchronised.group, synchronised.following = group, goes_on
    return synchronised.train(layer.training)
