"""Bundles: what a device runs, in one folder or .zip that can be checked before anything of it is used.

```
model.onnx            the model
model.int8.onnx       the same, quantized; may be missing
bundle.json           {"version": 3, "device": "raspberry-pi-5"}; may be missing
SHA256SUMS            of the files above, as `sha256sum` writes it
SHA256SUMS.ed25519    signature of SHA256SUMS (64 bytes, RFC 8032); may be missing
```

Checking a signature needs nothing but the standard library, so that a device can refuse what is not from its maker
without a package more; signing is for the workbench (`kdedge bundle --sign`).
"""

from kdedge_runtime.bundle.checksums import MODELS, SIGNATURE, SUMS, BundleError, format_sums
from kdedge_runtime.bundle.manifest import MANIFEST, Manifest
from kdedge_runtime.bundle.model_choice import load_fastest, sound_files
from kdedge_runtime.bundle.public_key import read_public_key
from kdedge_runtime.bundle.reader import opened_bundle

__all__ = [
    "MANIFEST",
    "MODELS",
    "SIGNATURE",
    "SUMS",
    "BundleError",
    "Manifest",
    "format_sums",
    "load_fastest",
    "opened_bundle",
    "read_public_key",
    "sound_files",
]
