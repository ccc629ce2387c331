"""Batch normalization synchronized over processes, so that a divided batch trains like a whole one."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdedge.training.distributed import ProcessGroup
from kdedge_runtime.errors import UsageError

__all__ = ["synchronize_batch_norm"]


class _Synchronized(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with statistics of the whole batch during training, on any device.

    PyTorch's `SyncBatchNorm` requires CUDA.
    """

    group: ProcessGroup
    following: list[nn.Module]
    """Layers applied after normalization in timm's variant; a plain list keeps the parameter names unchanged."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return self._apply_following(super().forward(input))
        x = input.float()
        # Two exchanges: the difference of mean square and squared mean would lose precision.
        mean = self.group.total(x.mean(dim=(0, 2, 3))) / self.group.size
        centered = x - mean[:, None, None]
        variance = self.group.total(centered.square().mean(dim=(0, 2, 3))) / self.group.size
        if self.track_running_stats:
            self._update_running_stats(mean.detach(), variance.detach(), self.group.size * x.numel() / x.shape[1])
        normalized = centered * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalized = normalized * self.weight[:, None, None] + self.bias[:, None, None]
        return self._apply_following(normalized.to(input.dtype))

    def _apply_following(self, x: Tensor) -> Tensor:
        for layer in self.following:
            x = layer.train(self.training)(x)
        return x

    def _update_running_stats(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def synchronize_batch_norm(model: nn.Module, group: ProcessGroup) -> None:
    """Replace every batch norm of a model by a synchronized one; module and tensor names are kept.

    Raises:
        UsageError: the model has an unsupported type of batch normalization.
    """
    if group.size == 1:
        return
    for path, layer in list(model.named_modules()):
        if isinstance(layer, _BatchNorm):
            model.set_submodule(path, _synchronized(path, layer, group))


def _synchronized(path: str, layer: _BatchNorm, group: ProcessGroup) -> _Synchronized:
    # timm's BatchNormAct2d applies dropout and an activation afterwards.
    goes_on = [part for name in ("drop", "act") if isinstance(part := getattr(layer, name, None), nn.Module)]
    if not isinstance(layer, nn.BatchNorm2d) or (type(layer) is not nn.BatchNorm2d and len(goes_on) != 2):
        raise UsageError(
            f"The layer {path} is a {type(layer).__name__}, whose statistics cannot be synchronized between processes. "
            "Train this model in one process."
        )
    synchronized = _Synchronized(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    synchronized.load_state_dict(layer.state_dict())
    synchronized.group, synchronized.following = group, goes_on
    return synchronized.train(layer.training)
