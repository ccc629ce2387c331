"""Sources of sounds: files, folders and microphones, cut into windows, selected by `--source`."""

import threading
from functools import partial
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources.audio.sound_files import SoundFiles
from kdedge_runtime.sources.audio.windows import SoundWindows
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import LiveSource
from kdedge_runtime.sources.looped import LoopedSource
from kdedge_runtime.sources.source import Source
from kdedge_runtime.util.file_hint import file_hint

__all__ = ["AUDIO_GRAMMAR", "SoundWindows", "open_audio_source"]

AUDIO_GRAMMAR = (
    "a sound file (wav, flac, ogg, …), a folder of sounds, http(s)://… of a sound file, mic:[NAME] for a microphone, "
    "or alsa:[DEVICE] for arecord"
)


def open_audio_source(
    windows: SoundWindows,
    uri: str,
    frames: Literal["all", "latest"] | None = None,
    stop: threading.Event | None = None,
    *,
    loop: bool = False,
) -> Source:
    """Create the source of a `--source` value. Devices and files are opened on entering it.

    | `uri`                 | source                                                              |
    |-----------------------|---------------------------------------------------------------------|
    | `mic:`, `mic:NAME`    | microphone by PortAudio (sounddevice), or by `arecord` without it   |
    | `alsa:`, `alsa:hw:1`  | microphone by `arecord`                                             |
    | `http://…`            | sound file that is downloaded first                                 |
    | any file or folder    | sounds, each cut into windows                                       |

    Args:
        windows: rate, length and interval of the windows.
        uri: source to read.
        frames: see `InputSpec.open_source`; `latest` plays a file in real time.
        stop: event that ends waits for live frames.
        loop: True restarts at the end of a file or folder.

    Raises:
        SourceError: the file does not exist.
        UsageError: the source has no end for `loop`.
        MissingDependency: a package or program for the source is not installed.
    """
    source = _create(windows, uri, stop)
    if loop:
        if source.live:
            raise UsageError(f"--loop needs a file or folder: {source.name} has no end.")
        source = LoopedSource(source)
    if (frames or ("latest" if source.live else "all")) == "all":
        return source
    return LatestFrames(source, stop)


def _create(windows: SoundWindows, uri: str, stop: threading.Event | None) -> Source:
    scheme, colon, rest = uri.partition(":")
    if colon and scheme in ("mic", "alsa"):
        from kdedge_runtime.sources.audio.microphone import open_arecord, open_microphone

        closed, stop = threading.Event(), stop or threading.Event()

        def is_closed() -> bool:
            return closed.is_set() or stop.is_set()

        opener = partial(open_microphone if scheme == "mic" else open_arecord, rest, windows, is_closed)
        return LiveSource(f"Microphone {uri}", scheme, opener, stop, window_s=windows.length_s, closed=closed)
    if colon and scheme in ("http", "https"):
        from kdedge_runtime.sources.audio.downloaded_sound import DownloadedSound

        return DownloadedSound(uri, windows, stop)
    path = Path(uri).expanduser()
    if not path.exists():
        raise SourceError(f"The file or folder {path} does not exist.{file_hint(path)} Expected {AUDIO_GRAMMAR}.")
    return SoundFiles(path, windows)
