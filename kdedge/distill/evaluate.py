"""How well a student does on held-out images, and how much it thinks like its teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.distill.compute import Compute
from kdedge.distill.losses.maps import at_common_size, pearson
from kdedge.distill.watched import Watched

__all__ = ["Beliefs", "agreement_metrics", "examine"]

_BATCH = 256


@dataclass(frozen=True)
class Beliefs:
    """What a model says of every image, and why."""

    logits: Tensor
    """float32 `[N, K]`."""
    maps: Tensor | None
    """float32 `[N, h, w]`, raw, of the asked classes; None for a model without maps."""


def examine(watched: Watched, images: Tensor, compute: Compute, classes: Tensor | None = None) -> Beliefs:
    """Run a model over images in evaluation mode.

    Args:
        watched: the model; its mode is left at evaluation.
        images: uint8 RGB `[N, H, W, 3]` on the compute device.
        compute: where and in which precision.
        classes: int64 `[N]`, whose maps to take; None takes each image's top class.
    """
    watched.eval()
    logits, maps = [], []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            with compute.autocast():
                view = watched(images[start : start + _BATCH])
            logits.append(view.logits)
            if view.activations is not None:
                wanted = view.logits.argmax(dim=1) if classes is None else classes[start : start + _BATCH]
                maps.append(view.maps(wanted[:, None])[:, 0])
    return Beliefs(torch.cat(logits), torch.cat(maps) if maps else None)


def agreement_metrics(student: Beliefs, targets: Tensor, teacher: Beliefs | None) -> dict[str, float]:
    """`val_top1`, `val_loss` (cross-entropy), and with a teacher `val_agreement` and `val_map_pearson`.

    Both sides' maps must be of the teacher's top class.
    """
    chosen = student.logits.argmax(dim=1)
    metrics = {"val_top1": _share(chosen == targets), "val_loss": float(F.cross_entropy(student.logits, targets))}
    if teacher is not None:
        metrics["val_agreement"] = _share(chosen == teacher.logits.argmax(dim=1))
        if student.maps is not None and teacher.maps is not None:
            metrics["val_map_pearson"] = float(pearson(*at_common_size(student.maps, teacher.maps)).mean())
    return metrics


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
