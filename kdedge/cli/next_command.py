"""Next command to type after an export or a validation."""

import shlex
from pathlib import Path

__all__ = ["live_command"]


def live_command(model: Path, source: str) -> str:
    """Return the command that runs a model file on a source and shows its maps in the live view."""
    return shlex.join(["kdedge", "run", str(model), "--source", source, "--view", "8080"])
