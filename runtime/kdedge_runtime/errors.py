"""The one tree of errors.

```
KdedgeError            exit 1   something went wrong that the message explains
├── UsageError         exit 2   the command or its input is not usable
│   ├── DataError      exit 2   the images or labels are not usable
│   └── ModelFileError exit 2   the model file is not one that kdedge can run
├── MissingDependency  exit 3   an optional package is not installed
├── ValidationFailed   exit 4   a gate failed (the report is written all the same)
└── SourceError        exit 5   the camera, video or picture could not be read
```

Every message says what happened, what was expected and what to type.
"""

from kdedge_runtime.util.printable import printable

__all__ = [
    "DataError",
    "KdedgeError",
    "MissingDependency",
    "ModelFileError",
    "SourceError",
    "UsageError",
    "ValidationFailed",
]


class KdedgeError(Exception):
    """Base of every error that kdedge raises on purpose.

    Args:
        message: one line; control characters are escaped, since it may quote a damaged or hostile file.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(KdedgeError):
    """The command or its input is not usable."""

    exit_code = 2


class DataError(UsageError):
    """The images or labels are not usable."""


class ModelFileError(UsageError):
    """The model file is not one that kdedge can run."""


class MissingDependency(KdedgeError):
    """An optional package is not installed."""

    exit_code = 3


class ValidationFailed(KdedgeError):
    """A gate failed; the report is written all the same."""

    exit_code = 4


class SourceError(KdedgeError):
    """The camera, video or picture could not be read."""

    exit_code = 5
