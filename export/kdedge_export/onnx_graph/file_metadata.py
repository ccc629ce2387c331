"""Metadata of a loaded model file."""

import onnx

from kdedge_runtime.metadata import PREFIX, Metadata

__all__ = ["read_metadata"]


def read_metadata(model: onnx.ModelProto) -> Metadata | None:
    """Return the metadata of a file from kdedge; None for a file of another framework.

    Raises:
        ModelFileError: the metadata have another schema, or contain an invalid value.
        MissingPlugin: no installed package provides its modality or its task.
    """
    props = {item.key: item.value for item in model.metadata_props}
    return Metadata.from_props(props) if f"{PREFIX}schema" in props else None
