"""Open a model from a model file or a bundle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kdedge_runtime.model import Model, is_bundle

__all__ = ["open_model"]


@contextmanager
def open_model(
    path: Path, load: Callable[[Path], Model], signer: str | None = None, device: str = "auto"
) -> Iterator[Model]:
    """Load a model file, or the model of a bundle after the bundle is verified.

    The model file exists for the duration of the block.

    Args:
        path: model file or bundle.
        load: function that loads a model file.
        signer: public key whose signature is required, see `kdedge_runtime.bundle.read_public_key`. A bare model file
        has no signature.
        device: device profile that a signed bundle must match, or `auto` for that of this machine.

    Raises:
        BundleError: the bundle is invalid, or a signature is required and the path is not a bundle.
        UsageError: the public key is invalid.
        MissingDependency: a signature is required, but the package cryptography is not installed.
    """
    if signer is None and not is_bundle(path):
        yield load(path)
        return
    from kdedge_runtime.bundle import load_fastest, verified_model_files  # not needed for a bare model file

    with verified_model_files(path, signer, device) as files:
        yield replace(load_fastest(files, load), bundle=path)
