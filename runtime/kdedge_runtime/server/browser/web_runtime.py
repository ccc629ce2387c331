"""onnxruntime-web: which one, how it gets here, and that it is the right one.

It comes from the npm registry as `npm pack` brings it (`make web-assets` does all of this) and lies beside this module,
where a wheel that is built afterwards takes it along.
"""

import base64
import gzip
import hashlib
import sys
import tarfile
from pathlib import Path

from kdedge_runtime.errors import KdedgeError, MissingDependency, UsageError
from kdedge_runtime.server import Asset
from kdedge_runtime.util.files import write_whole

__all__ = ["FOLDER", "PACKAGE", "onnxruntime_web", "unpack"]

PACKAGE = "onnxruntime-web@1.30.0"
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package, as the npm registry states it (`npm view onnxruntime-web@1.30.0 dist.integrity`)."""
_SCRIPT = "ort.wasm.bundle.min.mjs"
_BINARY = "ort-wasm-simd-threaded.wasm"
_STORED = (_SCRIPT, f"{_BINARY}.gz")
FOLDER = Path(__file__).parent / "ort"


def onnxruntime_web(folder: Path = FOLDER) -> dict[str, Asset]:
    """The files by the path that the page asks for.

    Raises:
        MissingDependency: they are not here.
    """
    if not all((folder / name).is_file() for name in _STORED):
        archive = PACKAGE.replace("@", "-") + ".tgz"
        raise MissingDependency(
            f"The page needs {PACKAGE}, which is not installed. In a checkout type `make web-assets`; elsewhere "
            f"`npm pack {PACKAGE} && "
            f"{Path(sys.executable).name} -m kdedge_runtime.server.browser.web_runtime {archive}`."
        )
    return {f"/ort/{name.removesuffix('.gz')}": Asset.of(name, (folder / name).read_bytes()) for name in _STORED}


def unpack(archive: Path, folder: Path = FOLDER) -> None:
    """Take the two files that the page needs out of the package; the larger one is kept compressed (14.2 → 3.7 MB).

    Raises:
        UsageError: there is no such file, or it is not exactly the package.
    """
    if not archive.is_file():
        raise UsageError(f"There is no file {archive}. Get it with `npm pack {PACKAGE}`.")
    content = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != _INTEGRITY:
        raise UsageError(f"{archive} is not {PACKAGE}: expected {_INTEGRITY}, got {found}. Get it anew: `npm pack`.")
    with tarfile.open(archive) as package:
        script, binary = (_member(package, f"package/dist/{name}") for name in (_SCRIPT, _BINARY))
    # The script begins with the licence, which speaks for both.
    notice = script[: script.index(b"*/") + 2]
    write_whole(folder / "LICENSE.txt", notice + b"\n", durable=False)
    write_whole(folder / f"{_BINARY}.gz", gzip.compress(binary, 9, mtime=0), durable=False)
    write_whole(folder / _SCRIPT, script, durable=False)


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    if file is None:
        raise UsageError(f"{name} in the package is no file.")
    return file.read()


if __name__ == "__main__":
    try:
        unpack(Path(sys.argv[1] if len(sys.argv) > 1 else "onnxruntime-web.tgz"))
    except KdedgeError as failure:
        sys.stderr.write(f"error: {failure}\n")
        sys.exit(failure.exit_code)
