"""Teacher that is an ensemble of trees."""

import numpy as np
import torch
from torch import Tensor

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.models.trees.ensemble import TreeEnsemble

__all__ = ["TreeTeacher"]


class TreeTeacher:
    """Ensemble of trees with exact TreeSHAP values as maps; a `Teacher`."""

    unexplained = None
    most_maps = None

    def __init__(self, ensemble: TreeEnsemble) -> None:
        self._ensemble = ensemble

    def __call__(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run the trees; see `Teacher`. They run on the CPU; the outputs are on the device of the rows."""
        is_explained = not isinstance(wanted, int) or wanted > 0
        found, parts = self._ensemble(samples.cpu().numpy(), explained=is_explained)
        logits = torch.from_numpy(np.ascontiguousarray(found)).to(samples.device)
        if parts is None:
            return ModelOutput(logits)
        classes = logits.topk(min(wanted, logits.shape[1]), dim=1).indices if isinstance(wanted, int) else wanted
        maps = torch.from_numpy(np.ascontiguousarray(parts)).to(samples.device)
        chosen = maps.gather(1, classes[..., None].expand(-1, -1, maps.shape[2]))
        return ModelOutput(logits, classes, chosen[:, :, None])
