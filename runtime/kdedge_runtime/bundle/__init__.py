"""Bundles: models for a device in one .zip file, verified before use.

```
model.onnx            model
model.PRECISION.onnx  the same model in another precision, such as int8; optional
bundle.json           {"version": 3, "device": "raspberry-pi-5"}; optional
SHA256SUMS            checksums of the files above, in the format of `sha256sum`
SHA256SUMS.ed25519    signature of SHA256SUMS (64 bytes, RFC 8032); optional
```

Checksums need only the standard library; a required signature also needs the package cryptography. Signing happens on
the development machine (`kdedge bundle --sign`).
"""

from kdedge_runtime.bundle.checksums import SIGNATURE, SUMS, BundleError, format_checksums, model_names
from kdedge_runtime.bundle.manifest import MANIFEST, Manifest
from kdedge_runtime.bundle.model_choice import load_fastest, verified_model_files
from kdedge_runtime.bundle.reader import open_bundle
from kdedge_runtime.bundle.signature import read_public_key

__all__ = [
    "MANIFEST",
    "SIGNATURE",
    "SUMS",
    "BundleError",
    "Manifest",
    "format_checksums",
    "load_fastest",
    "model_names",
    "open_bundle",
    "read_public_key",
    "verified_model_files",
]
