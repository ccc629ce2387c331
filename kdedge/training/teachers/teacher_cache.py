"""The teacher's answers on the disk: a second seed, method or ablation costs no forward pass of the teacher.

```
FOLDER/KEY/key.json             what the answers depend on
FOLDER/KEY/view-3.safetensors   of the fourth view of every training picture: logits, classes, maps
FOLDER/KEY/val.safetensors      of the validation pictures
```

A view is one fixed augmentation of every picture, so that answers to it can be kept. Files appear whole or not at all:
a run that is killed leaves complete views only.
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

from kdedge.losses.loss_inputs import Answer
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.files import staged, write_whole

__all__ = ["AnswerCache", "compact"]


class AnswerCache:
    """A teacher's compact answers to several sets of pictures.

    Maps are divided by their largest magnitude, since raw ones can be too small for half precision, and every term that
    compares maps is blind to their scale.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        """Open, or start, the answers that belong to a key.

        Args:
            folder: where the answers of all keys are.
            key: everything that the answers depend on (teacher, data, augmentation) as JSON values.

        Raises:
            UsageError: what is in the key's place belongs to another one.
        """
        text = json.dumps(key, indent=2, sort_keys=True) + "\n"
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        described = self.folder / "key.json"
        if not described.is_file():
            write_whole(described, text)
        elif described.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"The answers in {self.folder} are those of another teacher, to other pictures or with another "
                "augmentation. Remove that folder; they are computed again."
            )

    def read(self, name: str) -> Answer | None:
        """The answers to a set of pictures, memory-mapped and float16, or None where they were not written yet.

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
            raise UsageError(f"Cannot read the teacher's answers in {path}: {error}. Remove the file.") from error
        return Answer(tensors["logits"], tensors.get("classes"), tensors.get("maps"))

    def require_room(self, sample: Answer, count: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            sample: compact answers to some of the pictures.
            count: how many pictures there are.

        Raises:
            KdedgeError: there is not enough room.
        """
        taken = sum(part.numel() * part.element_size() for part in _parts(sample).values())
        needed, free = taken * count // len(sample.logits), shutil.disk_usage(self.folder).free
        if needed > free:
            raise KdedgeError(
                f"The teacher's answers to {count:,} pictures take {needed / 1e6:,.1f} MB, but the disk of "
                f"{self.folder} has {free / 1e6:,.1f} MB left. Make room and go on with --resume, or do without "
                "--cache-teacher."
            )

    def write(self, name: str, answer: Answer) -> None:
        """Keep compact answers to a set of pictures.

        Raises:
            KdedgeError: the disk is full, or the file cannot be written.
        """
        try:
            with staged(self._path(name)) as temporary:
                save_file({part: tensor.cpu().contiguous() for part, tensor in _parts(answer).items()}, temporary)
        except (OSError, SafetensorError) as error:
            raise KdedgeError(
                f"Cannot write {self._path(name)}: {error}. Make room, and go on with --resume."
            ) from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def compact(answer: Answer) -> Answer:
    """Logits and maps in half precision, maps divided by their largest magnitude, on the CPU."""
    if answer.maps is None or answer.classes is None:
        return Answer(answer.logits.half().cpu())
    largest = answer.maps.abs().amax(dim=(2, 3), keepdim=True)
    maps = answer.maps / largest.clamp_min(torch.finfo(torch.float32).tiny)
    return Answer(answer.logits.half().cpu(), answer.classes.int().cpu(), maps.half().cpu())


def _parts(answer: Answer) -> dict[str, Tensor]:
    parts = {"logits": answer.logits, "classes": answer.classes, "maps": answer.maps}
    return {name: part for name, part in parts.items() if part is not None}
