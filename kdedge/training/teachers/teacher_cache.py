"""Disk cache of teacher outputs; further seeds, losses or ablations need no forward pass of the teacher.

```
FOLDER/KEY/key.json             everything the outputs depend on
FOLDER/KEY/view-3.safetensors   fourth view of every training sample: logits, classes, maps, pooled features
FOLDER/KEY/val.safetensors      validation samples
```

A view is one fixed augmentation of every sample. Files are written atomically: a run that is killed leaves only
complete views.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdedge.losses.loss_inputs import ModelOutput
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.files import atomic_path, atomic_write

__all__ = ["TeacherCache", "to_stored_precision"]

_POOLED = "features"
"""Only pooled features are cached; spatial ones would be too large."""
_EXACT_LOGITS = 64
"""Maximum number of logits in float32: 256 bytes a sample, as many as a map of 11 × 11 takes."""


class TeacherCache:
    """Cached teacher outputs for several sets of samples: maps and features in half precision.

    Maps are divided by their largest magnitude, since raw ones can be too small for half precision. All terms that
    compare maps are scale-invariant. Up to 64 logits stay float32, since values of a regression may exceed half
    precision; more are stored in half precision.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        """Open or create the cache entry of a key.

        Args:
            folder: folder of all cache entries.
            key: everything that the outputs depend on (teacher, data, augmentation) as JSON values.

        Raises:
            UsageError: the entry belongs to another key.
        """
        text = json.dumps(key, indent=2, sort_keys=True) + "\n"
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        described = self.folder / "key.json"
        if not described.is_file():
            atomic_write(described, text)
        elif described.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"The teacher outputs in {self.folder} belong to another teacher, other samples or another "
                "augmentation. Remove that folder; they will be recomputed."
            )

    def read(self, name: str) -> ModelOutput | None:
        """Return the outputs for a set of samples as they were written, memory-mapped, or None if they are not cached.

        Raises:
            UsageError: the file is damaged.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UsageError(f"Cannot read the teacher outputs in {path}: {error}. Remove the file.") from error
        features = (tensors[_POOLED],) if _POOLED in tensors else ()
        return ModelOutput(tensors["logits"], tensors.get("classes"), tensors.get("maps"), features)

    def require_room(self, sample: ModelOutput, count: int) -> None:
        """Raise if the disk cannot hold the outputs.

        Args:
            sample: outputs for some of the samples, in the stored precision.
            count: total number of samples.

        Raises:
            KdedgeError: there is not enough free space.
        """
        taken = sum(part.numel() * part.element_size() for part in _parts(sample).values())
        needed, free = taken * count // len(sample.logits), shutil.disk_usage(self.folder).free
        if needed > free:
            raise KdedgeError(
                f"The teacher outputs for {count:,} samples need {needed / 1e6:,.1f} MB, but the disk of "
                f"{self.folder} has {free / 1e6:,.1f} MB free. Free some space and continue with --resume, or remove "
                "--cache-teacher."
            )

    def write(self, name: str, prediction: ModelOutput) -> None:
        """Write the outputs for a set of samples, see `to_stored_precision`.

        Raises:
            KdedgeError: the disk is full, or the file cannot be written.
        """
        try:
            with atomic_path(self._path(name)) as temporary:
                save_file({part: tensor.cpu().contiguous() for part, tensor in _parts(prediction).items()}, temporary)
        except (OSError, SafetensorError) as error:
            raise KdedgeError(
                f"Cannot write {self._path(name)}: {error}. Free some space, and continue with --resume."
            ) from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def to_stored_precision(prediction: ModelOutput) -> ModelOutput:
    """Convert outputs to the precision of the cache on the CPU, with maps divided by their largest magnitude."""
    logits = prediction.logits.float() if prediction.logits.shape[1] <= _EXACT_LOGITS else prediction.logits.half()
    logits, features = logits.cpu(), tuple(each.half().cpu() for each in prediction.features)
    if prediction.maps is None or prediction.classes is None:
        return ModelOutput(logits, features=features)
    largest = prediction.maps.abs().amax(dim=(2, 3), keepdim=True)
    maps = prediction.maps / largest.clamp_min(torch.finfo(torch.float32).tiny)
    return ModelOutput(logits, prediction.classes.int().cpu(), maps.half().cpu(), features)


def _parts(prediction: ModelOutput) -> dict[str, Tensor]:
    parts = {"logits": prediction.logits, "classes": prediction.classes, "maps": prediction.maps}
    if prediction.features:
        (parts[_POOLED],) = prediction.features
    return {name: part for name, part in parts.items() if part is not None}
