"""Validation of a published network with its weights."""

import zipfile
from pathlib import Path

import pytest

from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.metadata import Outputs

REFERENCE_DATA = Path(__file__).parents[3].parent / "shared" / "data"
PHOTOS = REFERENCE_DATA / "imagenet-sample-500.zip"
LITE0 = REFERENCE_DATA / "weights" / "tf_efficientnet_lite0.safetensors"


@pytest.mark.models
@pytest.mark.data
@pytest.mark.skipif(not PHOTOS.is_file() or not LITE0.is_file(), reason=f"no reference data in {REFERENCE_DATA}")
def test_pretrained_model_keeps_predictions_and_maps_in_int8(tmp_path: Path) -> None:
    """EfficientNet-Lite0 on photos outside the calibration set, from its name to the verdict."""
    with zipfile.ZipFile(PHOTOS) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::8]:
            (tmp_path / "photos").mkdir(exist_ok=True)
            (tmp_path / "photos" / Path(name).name).write_bytes(archive.read(name))
    data, output = str(tmp_path / "photos"), tmp_path / "lite0.onnx"
    profile = load_profile("generic")
    result = export_model(
        "timm:tf_efficientnet_lite0", weights=LITE0, output=output, precisions=["int8"], data=data, profile=profile
    )
    display = result.metadata.outputs.display
    assert result.metadata.outputs == Outputs("hirescam", "bn2", "GAP+Linear", 7, 7, display)
    assert max(map(abs, display.shift)) < 0.3, "as mirrored photos show"
    assert len(result.metadata.labels) == 1000
    report = validate_model(str(output), data=data, weights=LITE0).report
    # A dozen photos are too few to show every bound, but none may be violated.
    assert all(check.outcome != "failed" for check in report.checks)
    fp32, int8 = report.comparisons["fp32"], report.comparisons["int8"]
    assert fp32.agreement == 1.0
    assert fp32.maps is not None and fp32.maps.max_relative_error <= 1e-4
    assert int8.maps is not None and int8.maps.pearson_mean >= 0.98
    assert int8.maps.shuffled_pearson < 0.9, "maps of different photos agree as much as those of one"
    assert report.models["int8"].bytes < 0.5 * report.models["fp32"].bytes
