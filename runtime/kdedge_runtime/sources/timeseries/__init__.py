"""Sources of time series: recordings, standard input, a growing file, a serial port and an MQTT topic."""

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.looped import LoopedSource
from kdedge_runtime.sources.source import Source
from kdedge_runtime.sources.timeseries.lines import GrowingFile, SerialLines, StandardInput
from kdedge_runtime.sources.timeseries.live import LiveSeries
from kdedge_runtime.sources.timeseries.recorded import RecordedSeries, is_series_file
from kdedge_runtime.sources.timeseries.ts_file import TS_SUFFIX
from kdedge_runtime.util.file_hint import file_hint

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["SERIES_GRAMMAR", "open_series"]

SERIES_GRAMMAR = """a CSV, Parquet or .ts file, a folder of them, stdin, tail:FILE.csv, serial:PORT[@BAUD], \
mqtt://HOST/TOPIC, or synthetic:"""
_BAUD = 115_200


def open_series(
    spec: "TimeseriesInput",
    uri: str,
    frames: Literal["all", "latest"] | None,
    stop: threading.Event | None,
    *,
    loop: bool,
    hop_s: float | None,
) -> Source:
    """Create the source of windows for a `--source` value. Devices and files are opened on entering it.

    | `uri`                                | source                                                        |
    |--------------------------------------|---------------------------------------------------------------|
    | a `.csv`, `.parquet` or `.ts` file   | windows of a recording, or the cases of an archive's file     |
    | a folder                             | all files below it                                            |
    | `stdin`                              | lines of standard input                                       |
    | `tail:FILE.csv`                      | lines of a file that grows                                    |
    | `serial:/dev/ttyUSB0[@BAUD]`         | lines of a serial port, at 115,200 baud by default            |
    | `mqtt://HOST[:PORT]/TOPIC`, `mqtts:` | messages of a topic, in JSON or as comma-separated values     |
    | `synthetic:`, `synthetic:GESTURE`    | rendered gestures of `kdedge demo --modality timeseries`      |

    Args:
        spec: input of the model.
        uri: source to read.
        frames: `all` returns every window in order, `latest` only the newest one in real time. None is `latest` for
            live sources and `all` otherwise.
        stop: event that ends waits for rows.
        loop: True restarts at the end of a file or folder.
        hop_s: interval between windows in seconds; None takes that of the model.

    Raises:
        SourceError: the file does not exist.
        UsageError: the value is invalid, or the interval is given for a series without a clock.
    """
    hop = _hop(spec, uri, hop_s)
    source = _live_series(spec, uri, hop, stop) or _recorded(spec, uri, hop)
    if loop:
        if source.live:
            raise UsageError(f"--loop needs a file or folder: {source.name} has no end.")
        source = LoopedSource(source)
    policy = frames or ("latest" if source.live else "all")
    if policy == "all":
        return source
    if not source.live and source.fps is None and not loop:
        raise UsageError(
            f"{source.name} has no clock, so --frames latest does not apply. Use --frames all, which is the default."
        )
    return LatestFrames(source, stop)


def _hop(spec: "TimeseriesInput", uri: str, hop_s: float | None) -> int:
    if hop_s is None:
        return spec.hop
    if uri.lower().endswith(TS_SUFFIX):
        raise UsageError(
            f"--hop sets the interval of windows in a recording, but {uri} has single cases. Remove --hop."
        )
    if spec.rate_hz is None:
        raise UsageError(
            f"--hop is a time, but the model has no clock: its windows start every {spec.hop} rows. Remove --hop."
        )
    return max(1, round(hop_s * spec.rate_hz))


def _live_series(spec: "TimeseriesInput", uri: str, hop: int, stop: threading.Event | None) -> Source | None:
    """Return the source of a sensor, or None for a file or folder."""
    scheme, _, rest = uri.partition(":")
    if uri in ("stdin", "-"):
        return LiveSeries(spec, "Standard input", StandardInput, hop, stop)
    if scheme == "tail":
        path = Path(rest)
        if not path.is_file():
            raise SourceError(f"--source {uri}: there is no file {path}. Expected tail:FILE.csv.")
        return LiveSeries(spec, str(path), partial(GrowingFile, path), hop, stop)
    if scheme == "serial":
        port, _, baud = rest.partition("@")
        if not port or not (baud or "1").isdecimal():
            raise UsageError(
                f"--source {uri} is not a serial port. Expected serial:/dev/ttyUSB0, or with a baud rate: "
                f"serial:/dev/ttyUSB0@{_BAUD}."
            )
        connect = partial(SerialLines, port, int(baud or _BAUD))
        return LiveSeries(spec, f"The serial port {port}", connect, hop, stop, reopens=True)
    if scheme in ("mqtt", "mqtts"):
        from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
        from kdedge_runtime.sources.timeseries.topic import TopicLines

        address = BrokerAddress.parse(uri, option="--source")
        name = f"The topic {address.topic} of {address}"
        return LiveSeries(spec, name, partial(TopicLines, address), hop, stop, reopens=True)
    if scheme == "synthetic":
        from kdedge_runtime.sources.timeseries.gestures import SyntheticSeries

        SyntheticSeries.check(spec)
        return SyntheticSeries(rest or None, hop=hop)
    return None


def _recorded(spec: "TimeseriesInput", uri: str, hop: int) -> Source:
    path = Path(uri).expanduser()
    if not path.exists():
        raise SourceError(f"The file or folder {path} does not exist.{file_hint(path)} Expected {SERIES_GRAMMAR}.")
    if path.is_file() and not is_series_file(path):
        raise UsageError(f"--source {uri} has no time series. Expected {SERIES_GRAMMAR}.")
    return RecordedSeries(spec, path, hop)
