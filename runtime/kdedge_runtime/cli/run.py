"""Command `run`, the default: run a model on a source."""

import argparse
from pathlib import Path

from kdedge_runtime.cli.command import (
    Command,
    duration_s,
    megabytes,
    milliseconds,
    nonempty,
    positive_integer,
    rate,
    unit_interval,
)
from kdedge_runtime.cli.model_options import add_inference_options, add_model_argument
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.saliency_methods import methods_of

__all__ = ["COMMAND", "add_stream_options", "run_stream"]

_VIEW = "127.0.0.1:8080"
_MODEL_SUFFIXES = (".onnx", ".zip")


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of source, outputs, explanation schedule and inference."""
    add_model_argument(parser)
    parser.add_argument(
        "--source",
        type=nonempty,
        metavar="SOURCE",
        help="camera (0, usb:0, csi:0), URL (rtsp://…), video, image, folder or quoted pattern of images "
        "('photos/*.jpg'), or synthetic:[CLASS]; for other samples: a microphone (mic:), serial:PORT, mqtt://…, "
        "tail:FILE, stdin, or a file (default: the camera of --device)",
    )
    parser.add_argument(
        "--frames",
        choices=("all", "latest"),
        help="process every frame in order, or only the newest one (default: all for files, latest for cameras and "
        "streams)",
    )
    parser.add_argument(
        "--loop", action="store_true", help="restart at the end of a file or folder (default: stop there)"
    )
    parser.add_argument(
        "--crop",
        action="append",
        type=nonempty,
        metavar="[NAME=]X1,Y1,X2,Y2",
        help="predict this region (left, top, right, bottom) instead of the whole frame, in pixels or as fractions "
        "from 0 to 1; repeat for several regions (default: the whole frame)",
    )
    parser.add_argument(
        "--hop",
        type=duration_s,
        metavar="TIME",
        help="interval between the windows of a recording, such as 0.25s (default: that of the model)",
    )
    parser.add_argument(
        "--smooth",
        type=duration_s,
        metavar="TIME",
        help="average scores over a window of this length, such as 1s; maps are not averaged (default: no average)",
    )
    parser.add_argument(
        "--refractory",
        type=duration_s,
        metavar="TIME",
        help="set `event` in --jsonl for scores of 0.5 or more, at most once per label in this time, such as 1.5s "
        "(default: no events)",
    )
    where = parser.add_argument_group("outputs (can be combined)")
    where.add_argument(
        "--jsonl",
        metavar="FILE",
        help="write one JSON line per frame to this file; - for standard output (default: none)",
    )
    where.add_argument(
        "-o",
        "--output",
        type=nonempty,
        metavar="PATH",
        help="write the overlay to a video (PATH ends in .mp4) or a folder of images (default: none)",
    )
    where.add_argument(
        "--view",
        nargs="?",
        const=_VIEW,
        metavar="[HOST:]PORT",
        help=f"serve a live view at this address, or without one at {_VIEW}; use 0.0.0.0:PORT for network access with "
        "a token (default: no view)",
    )
    where.add_argument(
        "--token",
        metavar="TOKEN",
        help="token required to access the view (default: $KDEDGE_TOKEN, which is not printed, or a random one if the "
        "view is reachable from the network)",
    )
    where.add_argument(
        "--tls",
        nargs="?",
        const="",
        metavar="PEM",
        help="serve the view over HTTPS with a PEM file of a private key and its certificate, or without one with a "
        "self-signed certificate for this run (default: HTTP)",
    )
    where.add_argument(
        "--feedback",
        type=nonempty,
        metavar="FILE",
        help="store corrections made in the view, with their frames, in this SQLite file (default: no feedback)",
    )
    where.add_argument(
        "--mqtt",
        type=nonempty,
        metavar="URL",
        help="publish changes to this broker and topic, mqtt://[HOST[:PORT]]/TOPIC or mqtts://…, announced to Home "
        "Assistant; credentials from $KDEDGE_MQTT_USERNAME and $KDEDGE_MQTT_PASSWORD (default: none)",
    )
    where.add_argument(
        "--mqtt-ca",
        type=nonempty,
        metavar="PEM",
        help="authority that signed the broker's certificate (default: $KDEDGE_MQTT_CA, or those of the system)",
    )
    where.add_argument(
        "--record",
        type=nonempty,
        metavar="DIR",
        help="record the most useful frame of each second for kdedge distill --unlabeled: low probability "
        "or similarity, or a changed label (default: none)",
    )
    where.add_argument(
        "--record-mb",
        type=megabytes,
        metavar="N",
        help="size limit of --record in MB; the least useful frames are removed (default: 500)",
    )
    where.add_argument(
        "--record-unknown",
        type=nonempty,
        metavar="FILE",
        help="store frames that are unknown in this feedback file, at most one every 10 s (default: none)",
    )
    where.add_argument("--show", action="store_true", help="show the overlay in a window (default: no window)")
    when = parser.add_argument_group("explanation schedule")
    when.add_argument(
        "--cadence",
        default="always",
        metavar="WHEN",
        help="frames to explain: always, every=N, on-change (of the label) or low-confidence[=P] (score below P, or "
        "0.5); others are predicted, but not drawn (default: always)",
    )
    when.add_argument(
        "--method",
        metavar="NAME",
        help=f"black-box explainer: {', '.join(methods_of('perturbation'))} (default: the map of the model file)",
    )
    when.add_argument(
        "--budget-ms",
        type=milliseconds,
        metavar="MS",
        help="time limit for --method per frame and region, in milliseconds (default: its usual number of evaluations)",
    )
    when.add_argument(
        "--min-fps",
        type=rate,
        metavar="N",
        help="minimum frame rate; explanations are skipped to reach it (default: none is skipped)",
    )
    how = parser.add_argument_group("inference")
    how.add_argument(
        "--classes",
        type=nonempty,
        metavar="FILE",
        help="use the classes enrolled in FILE; the live view creates it (default: the classes of the model)",
    )
    how.add_argument("--class", dest="class_name", metavar="NAME", help="class to explain (default: the top-1 class)")
    how.add_argument(
        "--no-unknown",
        dest="unknown",
        action="store_false",
        help="never predict unknown (default: unknown below the familiarity threshold of the model or of --classes)",
    )
    how.add_argument("--opacity", type=unit_interval, metavar="0..1", help="heat map opacity, 0 to 1 (default: 0.6)")
    add_inference_options(how)


def _refuse_sample(path: Path) -> None:
    """Raise for a sample or a run folder in place of a model file."""
    if path.suffix.lower() in _MODEL_SUFFIXES or not path.exists():
        return
    if (path / "run.json").is_file():
        raise UsageError(
            f"{path} is a run folder. Expected its exported file, such as {path / 'model.onnx'}, and --source."
        )
    raise UsageError(f"{path} is no model file. To run a model on it, give it as the source: --source {path}")


def run_stream(arguments: argparse.Namespace, soak_s: float | None = None) -> KdedgeError | None:
    """Run a model on a source.

    Args:
        arguments: arguments parsed with the options of `add_stream_options`.
        soak_s: duration of a soak test in seconds; None for a run without one.

    Returns:
        The error of a source that failed after its first frame; None on success.

    Raises:
        KdedgeError: the arguments do not fit together, the model, the source or an output cannot be used, or the soak
        test failed.
    """
    if arguments.source is None and arguments.device is None:
        _refuse_sample(Path(arguments.model))
        raise UsageError(
            "There is no source. Add --source with a sensor or a file, or --device NAME for its camera; see --help."
        )
    if arguments.view is None:
        for option in ("token", "tls", "feedback"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} needs a live view. Add --view, or remove --{option}.")
    if arguments.mqtt_ca is not None and arguments.mqtt is None:
        raise UsageError("--mqtt-ca needs a broker. Add --mqtt URL, or remove --mqtt-ca.")
    # Imported after argument parsing, because onnxruntime and numpy load slowly.
    from kdedge_runtime.cli.stream_run import execute

    return execute(arguments, soak_s).failure


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument(
        "--max-frames", type=positive_integer, metavar="N", help="stop after N frames (default: no limit)"
    )


COMMAND = Command(
    "run",
    "MODEL",
    "Run an explained model: one forward pass per frame gives the prediction and its saliency map.",
    run_stream,
    _add_arguments,
)
