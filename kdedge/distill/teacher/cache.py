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

from kdedge.distill.losses.lesson import Answer
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.files import staged, write_whole

__all__ = ["AnswerCache"]


class AnswerCache:
    """A teacher's logits and maps for several sets of pictures.

    Numbers are float16, and maps are divided by their largest magnitude: every term that compares maps is blind to
    their scale, and raw maps can be too small for half precision.
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

    def write(self, name: str, answer: Answer) -> None:
        """Keep the answers to a set of pictures.

        Raises:
            KdedgeError: the disk is full, or the file cannot be written.
        """
        tensors = {"logits": answer.logits.half()}
        if answer.maps is not None and answer.classes is not None:
            largest = answer.maps.abs().amax(dim=(2, 3), keepdim=True)
            tensors["maps"] = (answer.maps / largest.clamp_min(torch.finfo(torch.float32).tiny)).half()
            tensors["classes"] = answer.classes.int()
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise KdedgeError(
                f"The teacher's answers to {len(answer.logits):,} pictures take {needed / 1e6:,.0f} MB, but the disk "
                f"of {self.folder} has {free / 1e6:,.0f} MB left. Make room and go on with --resume, or do without "
                "--cache-teacher."
            )
        try:
            with staged(self._path(name)) as temporary:
                save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        except (OSError, SafetensorError) as error:
            raise KdedgeError(
                f"Cannot write {self._path(name)}: {error}. Make room, and go on with --resume."
            ) from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
