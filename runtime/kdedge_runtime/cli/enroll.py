"""Command `enroll`: add samples to a class of an embedding model, or set the threshold of its classes."""

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.cli.command import Command, cosine, nonempty
from kdedge_runtime.cli.model_options import ModelOptions, add_inference_options, add_model_argument
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.file_hint import file_hint

if TYPE_CHECKING:
    from kdedge_runtime.enrolled_classes import EnrolledClasses
    from kdedge_runtime.modalities import InputSpec
    from kdedge_runtime.sources.source import Frame

__all__ = ["COMMAND", "enroll_samples", "set_threshold"]

_log = logging.getLogger(__name__)
_CLASSES = "classes.json"


def enroll_samples(
    options: ModelOptions, name: str, files: Sequence[Path], output: Path, threshold: float | None = None
) -> None:
    """Add samples to a class, print their similarities to stdout, and write the classes.

    Args:
        options: model and its settings.
        name: class, new or enrolled before.
        files: files of samples and folders of them.
        output: file of classes; it is extended if it exists.
        threshold: similarity below which a sample is unknown; None for that of the file, or of the model at first.

    Raises:
        SourceError: a path does not exist, or no sample can be read.
        KdedgeError: the model, the classes or the name cannot be used.
    """
    import numpy as np

    from kdedge_runtime.devices.detection import find_profile
    from kdedge_runtime.enrolled_classes import EnrolledClasses, check_class_name
    from kdedge_runtime.enrollment import embed_sample, enrolled_samples, enrollment_table, enrollment_warnings
    from kdedge_runtime.model_source import open_model
    from kdedge_runtime.util.printable import printable_lines

    name, profile = check_class_name(name), find_profile(options.device)
    with open_model(options.path, options.loader(profile), options.signer, options.device) as model:
        # Before any sample is read, because a wrong model or file is found at once.
        EnrolledClasses.read_or_new(output, model)
        frames, embeddings = [], []
        for frame in _frames(model.metadata.input, files):
            frames.append(frame.name)
            embeddings.append(embed_sample(model, frame.sample, frame.name))
    if not embeddings:
        raise SourceError(
            f"None of the samples of {name} can be read, so {output} is unchanged. Expected files that the model takes."
        )
    rows = np.stack(embeddings)

    def change(before: EnrolledClasses) -> EnrolledClasses:
        return replace(before, threshold=before.threshold if threshold is None else threshold).add(name, rows)

    classes = EnrolledClasses.update(output, model, change)
    samples = enrolled_samples(classes, name, frames, rows)
    count = next(each.samples for each in classes.classes if each.name == name)
    samples_added = f"{counted(len(rows), 'sample')} added, {count} in all"
    summary = f"{name}: {samples_added} · {_described(classes, output)}"
    sys.stdout.write(printable_lines(f"{enrollment_table(samples)}\n\n{summary}\n"))
    for warning in enrollment_warnings(samples, classes.threshold):
        _log.warning("warning: %s", warning)
    _log_next(options, output, model.metadata.input)


def set_threshold(options: ModelOptions, output: Path, threshold: float) -> None:
    """Set the threshold of an existing file of classes.

    Args:
        options: model and its settings.
        output: file of classes.
        threshold: similarity below which a sample is unknown, in [-1, 1].

    Raises:
        KdedgeError: the model or the classes cannot be used.
    """
    from kdedge_runtime.devices.detection import find_profile
    from kdedge_runtime.enrolled_classes import EnrolledClasses
    from kdedge_runtime.model_source import open_model
    from kdedge_runtime.util.printable import printable_lines

    profile = find_profile(options.device)
    with open_model(options.path, options.loader(profile), options.signer, options.device) as model:
        EnrolledClasses.read(output, model)  # raises if the file is missing
        classes = EnrolledClasses.update(output, model, lambda before: replace(before, threshold=threshold))
    sys.stdout.write(printable_lines(f"{_described(classes, output)}\n"))
    _log_next(options, output, model.metadata.input)


def _described(classes: "EnrolledClasses", output: Path) -> str:
    known = "nothing is unknown without --threshold"
    if classes.threshold is not None:
        known = f"unknown below {classes.threshold:.2f}"
    return f"{counted(len(classes.names), 'class', 'classes')} in {output}, {known}"


def _log_next(options: ModelOptions, output: Path, spec: "InputSpec") -> None:
    source = ["--source", spec.example_source, "--view"]
    command = shlex.join(["kdedge-run", str(options.path), "--classes", str(output), *source])
    _log.info("next: %s", command)


def _frames(spec: "InputSpec", files: Sequence[Path]) -> Iterator["Frame"]:
    """Yield the samples of files and folders. Unreadable files are logged and skipped."""
    from kdedge_runtime.sources.source import is_still_source

    for path in files:
        if not path.exists():
            raise SourceError(f"{path} does not exist.{file_hint(path)} Expected files or folders of them.")
        try:
            # Absolute, because a file could be named like a camera.
            with spec.open_source(str(path.absolute()), "all") as source:
                if not is_still_source(source):
                    raise UsageError(f"{path} is a recording. Extract single samples from it, and enroll them.")
                yield from source
        except SourceError as error:
            if path.is_dir():
                raise
            _log.warning("skipped: %s", error)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)
    parser.usage = "%(prog)s MODEL SAMPLES... --name NAME [options]\n       %(prog)s MODEL --threshold -1..1 [options]"
    files = parser.add_argument(
        "files",
        nargs="+",
        type=nonempty,
        default=[],
        metavar="SAMPLES",
        help="samples of the class: files or folders of them; without them, only --threshold is set",
    )
    files.required = False  # with nargs="*", files after an option would be rejected
    parser.add_argument(
        "--name",
        type=nonempty,
        metavar="NAME",
        help="name of the class of SAMPLES, new or enrolled before (default: none; needed for SAMPLES)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=nonempty,
        default=_CLASSES,
        metavar="FILE",
        help=f"file of enrolled classes; samples are added to it if it exists (default: {_CLASSES})",
    )
    parser.add_argument(
        "--threshold",
        type=cosine,
        metavar="-1..1",
        help="cosine similarity below which a sample is unknown, for all classes of the file (default: unchanged; at "
        "first the threshold of the model)",
    )
    add_inference_options(parser, device="auto")


def _execute(arguments: argparse.Namespace) -> None:
    options = ModelOptions.from_arguments(arguments)
    output, name, threshold = Path(arguments.output), arguments.name, arguments.threshold
    if arguments.files:
        if name is None:
            raise UsageError("The class of SAMPLES has no name. Add --name NAME.")
        enroll_samples(options, name, [Path(file) for file in arguments.files], output, threshold)
        return
    if name is not None:
        raise UsageError(
            f"There is no MODEL, or there are no samples of {name}. Expected MODEL SAMPLES --name NAME; to set only "
            "--threshold, remove --name."
        )
    if threshold is None:
        raise UsageError(f"Nothing would be changed in {output}. Add SAMPLES and --name NAME, or --threshold.")
    set_threshold(options, output, threshold)


COMMAND = Command(
    "enroll",
    "MODEL SAMPLES",
    "add samples to a class of an embedding model, or set its threshold, for `--classes`",
    _execute,
    _add_arguments,
)
