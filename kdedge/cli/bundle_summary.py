"""Terminal summary of a bundle."""

import shlex

from kdedge.cli.console import stderr_console
from kdedge.pipelines.bundle_writer import BundleSummary

__all__ = ["print_bundle"]


def print_bundle(packed: BundleSummary) -> None:
    """Print the bundle path, its contents, and the command to run it."""
    console = stderr_console()
    signed = "not signed" if packed.public_key is None else f"signed, public key {packed.public_key}"
    place = ", replacing an earlier bundle" if packed.replaced else ""
    console.print(f"{packed.path}  {', '.join(packed.models)}; {signed}{place}", soft_wrap=True)
    required = [] if packed.public_key is None else ["--require-signature", packed.public_key]
    command = shlex.join(["kdedge-run", str(packed.path), *required])
    console.print(f"\nNext, on the device: {command} --source 0 --view 8080", soft_wrap=True)
