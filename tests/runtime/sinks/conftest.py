"""Progress of a run that sinks receive."""

from pathlib import Path

import pytest

from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.stream.statistics import RunProgress


@pytest.fixture
def progress(tmp_path: Path) -> RunProgress:
    return RunProgress(ImageSource(tmp_path))
