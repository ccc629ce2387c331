"""Exception hierarchy of kdedge.

```
KdedgeError            exit 1   base class of all expected errors
├── UsageError         exit 2   invalid command or input
│   ├── DataError      exit 2   invalid samples or labels
│   └── ModelFileError exit 2   invalid or unsupported model file
├── MissingDependency  exit 3   an optional package is not installed
├── ValidationFailed   exit 4   a gate failed (the report is still written)
└── SourceError        exit 5   a camera, video or sample could not be read
    └── UnreadableSample exit 5  a sample could not be decoded
```

Every message states the problem, the expectation and the command or change that fixes it.
"""

from kdedge_runtime.util.printable import printable

__all__ = [
    "DataError",
    "KdedgeError",
    "MissingDependency",
    "ModelFileError",
    "SourceError",
    "UnreadableSample",
    "UsageError",
    "ValidationFailed",
]


class KdedgeError(Exception):
    """Base class of all errors that kdedge raises deliberately.

    Args:
        message: one line; control characters are escaped, because it may quote a damaged or hostile file.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(KdedgeError):
    """Invalid command or input."""

    exit_code = 2


class DataError(UsageError):
    """Invalid samples or labels."""


class ModelFileError(UsageError):
    """Invalid or unsupported model file."""


class MissingDependency(KdedgeError):
    """Optional package that is not installed."""

    exit_code = 3


class ValidationFailed(KdedgeError):
    """Failed gate. The report is still written."""

    exit_code = 4


class SourceError(KdedgeError):
    """Camera, file or other source that could not be read."""

    exit_code = 5


class UnreadableSample(SourceError):
    """Sample that cannot be decoded.

    Args:
        message: one line.
        fault: reason in one or two words, which reports count, such as `truncated`.
    """

    def __init__(self, message: str, fault: str) -> None:
        super().__init__(message)
        self.fault = fault
