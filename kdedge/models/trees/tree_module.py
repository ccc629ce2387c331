"""Ensemble of trees as a module, for validation beside the student."""

import numpy as np
import torch
from torch import Tensor, nn

from kdedge.models.trees.ensemble import TreeEnsemble

__all__ = ["TreeModule"]


class TreeModule(nn.Module):
    """Logits and TreeSHAP maps of an ensemble, with the outputs of an exported module."""

    def __init__(self, ensemble: TreeEnsemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def forward(self, sample: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict and explain rows; see `ExportableModel`.

        Args:
            sample: preprocessed rows, float32 `[N, F]`.
            class_index: int64 `[N]` or `[1]`; -1 explains the top-1 class.
        """
        logits, parts = self.ensemble(sample.cpu().numpy(), explained=True)
        assert parts is not None
        wanted = np.broadcast_to(class_index.cpu().numpy(), len(logits))
        classes = np.where(wanted < 0, logits.argmax(axis=1), wanted)
        maps = np.ascontiguousarray(parts[np.arange(len(parts)), classes][:, None])
        return torch.from_numpy(logits), torch.from_numpy(maps), torch.from_numpy(classes.astype(np.int64))
