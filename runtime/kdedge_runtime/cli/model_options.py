"""Options shared by the commands that open a model."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kdedge_runtime.cli.command import positive_integer

if TYPE_CHECKING:
    from kdedge_runtime.devices import DeviceProfile
    from kdedge_runtime.model import Model

__all__ = ["ModelOptions", "add_inference_options", "add_json_option", "add_model_argument"]


@dataclass(frozen=True)
class ModelOptions:
    """Model of a self-test or benchmark, and its settings."""

    path: Path
    """Model file or bundle."""
    device: str = "auto"
    """Device profile; `auto` for this machine."""
    threads: int | None = None
    """Threads per inference; None for the profile's."""
    provider: str | None = None
    """Execution provider; None for the profile's first one that is installed."""
    signer: str | None = None
    """Public key whose signature a bundle must have, or None."""
    as_json: bool = False
    """True prints one JSON object instead of text."""

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """Return the options of a command line."""
        return cls(
            Path(arguments.model),
            device=arguments.device,
            threads=arguments.threads,
            provider=arguments.provider,
            signer=arguments.require_signature,
            as_json=getattr(arguments, "json", False),  # not all commands have --json
        )

    def loader(self, profile: "DeviceProfile") -> "Callable[[Path], Model]":
        """Return a function that loads a model file with these options, or else the profile's settings."""
        from kdedge_runtime.model import Model, available_providers

        settings = profile.onnxruntime
        provider = self.provider or settings.best_provider(available_providers())

        def load(path: Path) -> Model:
            return Model.load(
                path, threads=self.threads or profile.threads, provider=provider, spinning=settings.spinning
            )

        return load


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the MODEL argument."""
    parser.add_argument("model", metavar="MODEL", help="model file (.onnx) or bundle created by `kdedge bundle`")


def add_inference_options(parser: argparse._ActionsContainer, device: str | None = None) -> None:
    """Add the options that select signature, device profile, threads and provider.

    Args:
        parser: parser or argument group.
        device: default device profile; None for no profile.
    """
    parser.add_argument(
        "--require-signature",
        metavar="PUBLICKEY",
        help="accept only bundles signed with this Ed25519 key (hexadecimal, or a PEM file) (default: accept all)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        default=device,
        help="use threads, provider and spinning of a device profile, one of those that the command `devices` lists; "
        f"auto: profile of this machine (default: {device or 'none'})",
    )
    threads, provider = ("chosen by onnxruntime", "cpu") if device is None else ("from the profile", "from the profile")
    parser.add_argument(
        "--threads", type=positive_integer, metavar="N", help=f"threads per inference (default: {threads})"
    )
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help=f"onnxruntime execution provider; an error if it is not available (default: {provider})",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object (default: text)")
