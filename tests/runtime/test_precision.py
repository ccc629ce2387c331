"""Names of precisions and of their files, and the choice of the precision to run."""

from pathlib import Path

import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.precision import PRECISIONS, check_fp32_name, fastest, find_variants, precision_named, variant_path


@pytest.mark.parametrize("stem", ["model", "a.b", "resnet18.explained"])
@pytest.mark.parametrize("given", PRECISIONS)
@pytest.mark.parametrize("wanted", PRECISIONS)
def test_file_names_are_derived_from_any_precision(stem: str, given: str, wanted: str) -> None:
    suffixes = {name: ".onnx" if name == "fp32" else f".{name}.onnx" for name in (given, wanted)}
    path = Path("folder") / f"{stem}{suffixes[given]}"
    assert variant_path(path, PRECISIONS[wanted]) == Path("folder") / f"{stem}{suffixes[wanted]}"


def test_variants_are_the_existing_files_of_the_same_model(tmp_path: Path) -> None:
    for name in ("model.int8.onnx", "model.onnx", "other.fp16.onnx", "model.plain.onnx", "model.fp16.html"):
        (tmp_path / name).touch()
    (tmp_path / "model.fp16.onnx").mkdir()
    assert find_variants(tmp_path / "model.onnx") == (tmp_path / "model.int8.onnx",)
    (tmp_path / "model.fp16.onnx").rmdir()
    (tmp_path / "model.fp16.onnx").touch()
    assert find_variants(tmp_path / "model.onnx") == (tmp_path / "model.fp16.onnx", tmp_path / "model.int8.onnx")
    assert find_variants(tmp_path / "model.fp16.onnx") == (tmp_path / "model.onnx", tmp_path / "model.int8.onnx")


@pytest.mark.parametrize(
    ("latencies", "chosen"),
    [
        ({"fp32": 10.0}, "fp32"),
        ({"int8": 10.0}, "int8"),
        ({"fp32": 10.0, "fp16": 9.6, "int8": 9.6}, "fp32"),
        ({"fp32": 10.0, "fp16": 9.4, "int8": 20.0}, "fp16"),
        ({"int8": 5.0, "fp16": 5.2, "fp32": 10.0}, "fp16"),
        ({"fp32": 10.0, "fp16": 6.0, "int8": 5.0}, "int8"),
        ({"fp16": 10.0, "int8": 9.6}, "fp16"),
        ({"fp32": 10.0, "fp16": float("nan"), "int8": 5.0}, "int8"),
    ],
)
def test_less_exact_precision_must_be_faster(latencies: dict[str, float], chosen: str) -> None:
    assert fastest(latencies) == chosen


@pytest.mark.parametrize("name", ["model.int8.onnx", "a.b.fp16.onnx"])
def test_fp32_file_must_not_have_the_name_of_another_precision(name: str) -> None:
    with pytest.raises(UsageError, match=r"Name it (model|a\.b)\.onnx"):
        check_fp32_name(Path("folder") / name)
    check_fp32_name(Path("folder.int8.onnx") / "int8.onnx")


def test_unknown_precision_is_an_error() -> None:
    with pytest.raises(UsageError, match=rf"'int3'.*{', '.join(PRECISIONS)}"):
        precision_named("int3")
