"""Third-party `.onnx` file and its external weights, before they are loaded."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import refuse_bundle
from kdedge_runtime.util.file_hint import file_hint

__all__ = ["ForeignFile"]


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """Model file of any framework, with its external weights on disk."""

    path: Path
    model: onnx.ModelProto
    """Content of the file; external weights are not loaded."""
    external: tuple[Path, ...]
    """Files of external weights, sorted by name."""

    @classmethod
    def open(cls, path: Path) -> "ForeignFile":
        """Parse a file and find its external weights.

        Raises:
            ModelFileError: the file is missing or not an ONNX model, or external weights are missing.
        """
        if not path.is_file():
            raise ModelFileError(
                f"There is no model file {path}.{file_hint(path)} Expected an .onnx file with a classifier."
            )
        refuse_bundle(path)
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's errors have no common base
            raise ModelFileError(f"{path} is not an ONNX model: {error}. Export or copy it again.") from error
        names = {
            entry.value
            for tensor in model.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        missing = sorted(name for name in names if not (path.parent / name).is_file())
        if missing:
            raise ModelFileError(
                f"{path} stores its weights in {', '.join(missing)}, which is not in the same folder. Copy that file "
                "too, or save the model in one file: onnx.save(model, FILE, save_as_external_data=False)."
            )
        return cls(path, model, tuple(path.parent / name for name in sorted(names)))

    @property
    def size_bytes(self) -> int:
        """Size of the file and its external weights."""
        return sum(part.stat().st_size for part in (self.path, *self.external))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file followed by its external weights, hexadecimal."""
        digest = hashlib.sha256()
        for part in (self.path, *self.external):
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()
