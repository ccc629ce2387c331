"""An optional package that cannot be imported is an error that names the package, the reason and the command."""

import pytest

from kdedge_runtime.errors import MissingDependency
from kdedge_runtime.util.optional_package import needs_package


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("no shared library")])
def test_failed_import_names_the_remedy(error: Exception) -> None:
    with (
        pytest.raises(MissingDependency, match=rf"^Reading needs reader, .*{error}.*: pip install reader$") as caught,
        needs_package("Reading", "reader", "pip install reader"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="odd"), needs_package("Reading", "reader", "pip install reader"):
        raise ValueError("odd")
