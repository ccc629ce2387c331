"""Imports of the runtime: it starts without torch, OpenCV and the training packages."""

import json
import subprocess
import sys

import pytest

FORBIDDEN = ["torch", "torchvision", "onnx", "cv2", "cryptography", "paho", "rich", "typer", "kdedge", "kdedge_export"]


def _loaded_after(code: str) -> set[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_runtime_imports_without_training_packages() -> None:
    code = (
        "import pkgutil, importlib, kdedge_runtime\n"
        "for module in pkgutil.walk_packages(kdedge_runtime.__path__, 'kdedge_runtime.'):\n"
        "    importlib.import_module(module.name)"
    )
    loaded = _loaded_after(code)
    assert "kdedge_runtime.cli.stream_run" in loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_parser_imports_nothing_heavy() -> None:
    loaded = _loaded_after(
        "from kdedge_runtime.cli.main import SUBCOMMANDS, build_parser\n"
        "for name in (None, *SUBCOMMANDS):\n    build_parser(name=name).format_help()"
    )
    assert loaded.isdisjoint([*FORBIDDEN, "numpy", "onnxruntime", "PIL"])


def test_model_file_does_not_import_bundle_code() -> None:
    loaded = _loaded_after("import kdedge_runtime.cli.stream_run")
    assert loaded.isdisjoint(["kdedge_runtime.bundle", "zipfile"])


def test_public_names_are_imported_lazily() -> None:
    import kdedge_runtime

    for name in kdedge_runtime.__all__:
        assert getattr(kdedge_runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="Modell"):
        kdedge_runtime.Modell  # noqa: B018


def test_missing_opencv_error_names_the_package() -> None:
    code = (
        "sys.modules['cv2'] = None\n"
        "from kdedge_runtime.cli.main import main\n"
        "from kdedge_runtime.sources import open_source\n"
        "from kdedge_runtime.errors import MissingDependency\n"
        "try:\n    open_source('0').__enter__()\n"
        "except MissingDependency as error:\n    print(json.dumps([error.exit_code, str(error)])); sys.exit()"
    )
    done = subprocess.run([sys.executable, "-c", f"import json, sys\n{code}"], capture_output=True, text=True)
    exit_code, message = json.loads(done.stdout)
    assert exit_code == 3
    assert "pip install opencv-python-headless" in message
    assert "apt install python3-opencv" in message
