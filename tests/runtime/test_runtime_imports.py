"""The runtime must start where there is no torch, no OpenCV and nothing of the workbench."""

import json
import subprocess
import sys

import pytest

FORBIDDEN = ["torch", "torchvision", "onnx", "cv2", "rich", "typer", "kdedge", "kdedge_export"]


def _loaded_after(code: str) -> set[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_whole_device_side_loads_without_the_workbench() -> None:
    code = (
        "import pkgutil, importlib, kdedge_runtime\n"
        "for module in pkgutil.walk_packages(kdedge_runtime.__path__, 'kdedge_runtime.'):\n"
        "    importlib.import_module(module.name)"
    )
    loaded = _loaded_after(code)
    assert "kdedge_runtime.cli.run" in loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_the_parser_loads_nothing_heavy_so_that_help_answers_at_once() -> None:
    loaded = _loaded_after("import kdedge_runtime.cli.main\nkdedge_runtime.cli.main.build_parser().format_help()")
    assert loaded.isdisjoint([*FORBIDDEN, "numpy", "onnxruntime", "PIL"])


def test_a_bare_model_file_starts_without_what_bundles_take() -> None:
    loaded = _loaded_after("import kdedge_runtime.cli.run")
    assert loaded.isdisjoint(["kdedge_runtime.bundle", "zipfile"])


def test_the_public_names_are_there_on_first_use() -> None:
    import kdedge_runtime

    for name in kdedge_runtime.__all__:
        assert getattr(kdedge_runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="Modell"):
        kdedge_runtime.Modell  # noqa: B018


def test_a_missing_opencv_says_what_to_install() -> None:
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
