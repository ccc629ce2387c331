"""onnxruntime-web: pinned version, installation and integrity check.

`npm pack` downloads it from the npm registry (`make web-assets` runs all steps). It is stored next to this module,
where later wheel builds include it.
"""

import base64
import gzip
import hashlib
import sys
import tarfile
from pathlib import Path

from kdedge_runtime.errors import KdedgeError, MissingDependency, UsageError
from kdedge_runtime.server import StaticFile
from kdedge_runtime.util.files import atomic_write

__all__ = ["FOLDER", "PACKAGE", "onnxruntime_web", "unpack"]

PACKAGE = "onnxruntime-web@1.30.0"
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Hash of the package, as stated by the npm registry (`npm view onnxruntime-web@1.30.0 dist.integrity`)."""
_SCRIPT = "ort.wasm.bundle.min.mjs"
_BINARY = "ort-wasm-simd-threaded.wasm"
_STORED = (_SCRIPT, f"{_BINARY}.gz")
FOLDER = Path(__file__).parent / "ort"


def onnxruntime_web(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """Return the files by URL path.

    Raises:
        MissingDependency: the files are not installed.
    """
    if not all((folder / name).is_file() for name in _STORED):
        archive = PACKAGE.replace("@", "-") + ".tgz"
        raise MissingDependency(
            f"The page needs {PACKAGE}, which is not installed. In a checkout run `make web-assets`; elsewhere `npm "
            f"pack {PACKAGE} && {Path(sys.executable).name} -m kdedge_runtime.server.browser.web_runtime {archive}`."
        )
    return {f"/ort/{name.removesuffix('.gz')}": StaticFile.of(name, (folder / name).read_bytes()) for name in _STORED}


def unpack(archive: Path, folder: Path = FOLDER) -> None:
    """Extract the two required files from the package. The larger one is stored compressed (14.2 → 3.7 MB).

    Raises:
        UsageError: the file does not exist, or its hash differs.
    """
    if not archive.is_file():
        raise UsageError(f"The file {archive} does not exist. Download it with `npm pack {PACKAGE}`.")
    content = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != _INTEGRITY:
        raise UsageError(
            f"{archive} is not {PACKAGE}: expected {_INTEGRITY}, got {found}. Download it again: `npm pack`."
        )
    with tarfile.open(archive) as package:
        script, binary = (_member(package, f"package/dist/{name}") for name in (_SCRIPT, _BINARY))
    # The license at the beginning of the script covers both files.
    notice = script[: script.index(b"*/") + 2]
    atomic_write(folder / "LICENSE.txt", notice + b"\n", durable=False)
    atomic_write(folder / f"{_BINARY}.gz", gzip.compress(binary, 9, mtime=0), durable=False)
    atomic_write(folder / _SCRIPT, script, durable=False)


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    if file is None:
        raise UsageError(f"{name} in the package is not a regular file.")
    return file.read()


if __name__ == "__main__":
    try:
        unpack(Path(sys.argv[1] if len(sys.argv) > 1 else "onnxruntime-web.tgz"))
    except KdedgeError as failure:
        sys.stderr.write(f"error: {failure}\n")
        sys.exit(failure.exit_code)
