"""Background recordings, on which false alarms are counted."""

from collections.abc import Callable

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.sources.source import Source

__all__ = ["background_source"]


def background_source(spec: InputSpec, location: str) -> Callable[[], Source]:
    """Return a function that opens recordings as on the device, with the default hop of the input.

    Raises:
        UsageError: samples of this kind have no windows in time.
    """
    if spec.hop_s is None:
        raise UsageError(
            f"--background counts false alarms per hour, but {spec.kind} samples have no duration. Remove it, or use "
            "--unfamiliar."
        )
    return lambda: spec.open_source(location, "all")
