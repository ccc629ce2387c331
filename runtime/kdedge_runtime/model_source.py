"""The model of a file or of a bundle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kdedge_runtime.model import Model, is_bundle

__all__ = ["opened_model"]


@contextmanager
def opened_model(
    path: Path, load: Callable[[Path], Model], signer: str | None = None, device: str = "auto"
) -> Iterator[Model]:
    """Load a model file, or a bundle's model once the bundle is known to be sound.

    The model's file is there for as long as the block lasts.

    Args:
        path: a model file or a bundle.
        load: opens a model file.
        signer: public key whose signature is required, see `kdedge_runtime.bundle.read_public_key`; a bare file has
            none.
        device: the profile that a signed bundle must be for, or `auto` for that of this machine.

    Raises:
        BundleError: a signature is asked for and it is no bundle, or it is not a sound one.
        UsageError: the key is none.
    """
    if signer is None and not is_bundle(path):
        yield load(path)
        return
    from kdedge_runtime.bundle import load_fastest, sound_files  # a bare file starts without them

    with sound_files(path, signer, device) as files:
        yield load_fastest(files, load)
