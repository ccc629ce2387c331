"""Outputs of a run other than the live view: files, a window, systemd, and lines on a terminal."""

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import TextIO

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sinks.sink import Sink
from kdedge_runtime.sources import Source
from kdedge_runtime.sources.source import PostedSource, is_still_source

__all__ = ["make_sinks"]

_RECORD_MB = 500.0


def make_sinks(
    arguments: argparse.Namespace, source: Source, stop: threading.Event, suffix: str = ".jpg"
) -> list[Sink]:
    """Return the sinks of the output options, of systemd and of standard output and error, not yet opened.

    Args:
        arguments: arguments parsed with the options of `kdedge_runtime.cli.run`.
        source: opened source.
        stop: event that ends the run.
        suffix: suffix of files with one sample, `InputSpec.sample_suffix`.

    Raises:
        UsageError: an output overlaps the source or has an unsupported type.
        MissingDependency: an output needs a package that is not installed.
    """
    sinks: list[Sink] = []
    if arguments.jsonl is not None:
        from kdedge_runtime.sinks.json_lines import JsonLinesFile

        sinks.append(JsonLinesFile(arguments.jsonl, stop))
    if arguments.output is not None:
        _check_apart(Path(arguments.output), source)
        sinks.append(_output(Path(arguments.output), source))
    if arguments.record is not None:
        from kdedge_runtime.sinks.frame_recorder import FrameRecorder

        _check_apart(Path(arguments.record), source, "--record")
        cap_mb = arguments.record_mb or _RECORD_MB
        sinks.append(FrameRecorder(Path(arguments.record), cap_mb, source, suffix=suffix))
    elif arguments.record_mb is not None:
        raise UsageError("--record-mb limits a recording. Add --record DIR, or remove it.")
    if arguments.show:
        from kdedge_runtime.sinks.window import Window

        sinks.append(Window(stop))
    if "NOTIFY_SOCKET" in os.environ:
        from kdedge_runtime.sinks.systemd import SystemdNotifier

        if notifier := SystemdNotifier.from_environment():
            sinks.append(notifier)
    # In a folder that is read in circles predictions are only counted, and posted rows have a response of their own.
    has_lines = is_still_source(source) and not isinstance(source, PostedSource) and not arguments.loop
    prints_lines = arguments.jsonl is None and has_lines and sys.stdout is not None
    if prints_lines:
        from kdedge_runtime.sinks.prediction_lines import PredictionLines

        sinks.append(PredictionLines(stop))
    if _is_terminal(sys.stderr) and not (_is_terminal(sys.stdout) and (prints_lines or arguments.jsonl == "-")):
        from kdedge_runtime.sinks.status_line import StatusLine

        sinks.append(StatusLine())
    return sinks


def _is_terminal(stream: TextIO | None) -> bool:
    """Return True for a terminal. A process may be started without the stream (`>&-`)."""
    return stream is not None and stream.isatty()


def _check_apart(output: Path, source: Source, option: str = "-o") -> None:
    """Raise if the output overlaps the source. Overlays have the names of their samples and would overwrite them."""
    taken = {path.resolve() for path in source.paths}
    beside = {path.parent.resolve() for path in source.paths if is_still_source(source) and path.is_file()}
    place = output.resolve()
    if place in taken | beside or not taken.isdisjoint(place.parents):
        raise UsageError(
            f"{option} {output} overlaps --source: its files would overwrite those of the source or be read as "
            "samples. Choose another path."
        )


def _output(path: Path, source: Source) -> Sink:
    if path.suffix.lower() == ".mp4":
        if is_still_source(source):
            raise UsageError(
                "Single samples cannot be written as a video. Use a folder for their overlays: `-o "
                f"{path.with_suffix('')}`."
            )
        from kdedge_runtime.sinks.video_file import VideoFile

        return VideoFile(path, source.fps, live=source.live)
    if path.suffix and not path.is_dir():
        raise UsageError(f"-o {path} is neither a video (*.mp4) nor a folder. Use one of them.")
    from kdedge_runtime.sinks.image_folder import ImageFolder

    return ImageFolder(path, names_differ=not is_still_source(source))
