"""Self-test and benchmark of a bundle."""

import hashlib
import json
import shutil
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
from reference_files import with_metadata, with_reference_frames

from kdedge_runtime.bundle import format_checksums
from kdedge_runtime.cli.main import main
from kdedge_runtime.diagnostics import benchmark
from kdedge_runtime.diagnostics.benchmark import run_benchmark
from kdedge_runtime.errors import MissingDependency

KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""Public key of the first test vector of RFC 8032."""


@pytest.fixture
def bundle(tmp_path: Path, model_path: Path) -> Path:
    """Unsigned .zip bundle with an fp32 and an int8 model and valid checksums."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("model.onnx", "model.int8.onnx"):
        with_reference_frames(Path(shutil.copy(model_path, folder / name)))
    with_metadata(folder / "model.int8.onnx", quantization={"weights": "int8", "reduce_range": True})
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    (folder / "SHA256SUMS").write_bytes(format_checksums(sums))
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


def test_self_test_uses_the_fastest_model(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self-test", str(bundle), "--device", "generic"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] in ("model.onnx on generic", "model.int8.onnx on generic")
    assert "checksums verified" in printed.err


def test_bench_measures_both_models(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "run_benchmark", partial(run_benchmark, runs=2))
    assert main(["bench", str(bundle), "--json"]) == 0
    names = {timing["name"] for timing in json.loads(capsys.readouterr().out)["timings"]}
    assert names == {"fp32", "fp32 without map", "int8", "int8 without map"}


@pytest.mark.parametrize("verb", ["self-test", "bench"])
def test_unsigned_bundle_is_rejected(
    bundle: Path, model_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (bundle, model_path):
        assert main([verb, str(path), "--require-signature", KEY]) != 0
        printed = capsys.readouterr()
        assert printed.out == "" and "signature" in printed.err


def test_required_signature_without_cryptography_is_a_missing_dependency(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    assert main([str(bundle), "--source", "synthetic:", "--require-signature", KEY]) == MissingDependency.exit_code
    printed = capsys.readouterr()
    assert printed.out == "" and "pip install cryptography" in printed.err
