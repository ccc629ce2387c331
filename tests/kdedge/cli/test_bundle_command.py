"""End-to-end tests of `kdedge bundle` and `kdedge-run`: checksums, signatures and version checks."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import helper
from PIL import Image
from training_toys import Outcome

from kdedge.cli.app import app
from kdedge_runtime import Model
from kdedge_runtime.diagnostics import benchmark


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    app(["export", "small:resnet8", "--no-pretrained", "-o", str(path)], standalone_mode=False)
    return path


@pytest.fixture
def run_folder(model_file: Path, tmp_path: Path) -> Path:
    """Run folder as written by `kdedge export --quantize`, with a second file that only states to be int8."""
    folder = tmp_path / "student"
    folder.mkdir()
    shutil.copy(model_file, folder / "model.onnx")
    model = onnx.load(model_file)
    metadata = replace(Model.load(model_file).metadata, quantization={"precision": "int8"})
    helper.set_model_props(model, metadata.to_props())
    onnx.save_model(model, folder / "model.int8.onnx")
    return folder


def test_file_of_another_precision_is_rejected(command: Callable[..., Outcome], run_folder: Path) -> None:
    shutil.copy(run_folder / "model.int8.onnx", run_folder / "model.fp16.onnx")
    packed = command("bundle", run_folder)
    assert packed.code == 2 and "model.fp16.onnx is not fp16, but int8" in packed.err
    assert not (run_folder / "bundle.zip").exists()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Private key created as the error message suggests, next to its public key."""
    pytest.importorskip("cryptography", reason="signing needs cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the key")
    private, public = tmp_path / "maker.pem", tmp_path / "maker.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private


def watch(command: Callable[..., Outcome], bundle: Path, *options: str) -> Outcome:
    return command("run", str(bundle), "--source", "synthetic:", "--max-frames", "2", "--jsonl", "-", *options)


def test_signed_bundle_runs(command: Callable[..., Outcome], run_folder: Path, key: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "student.zip"
    packed = command("bundle", str(run_folder), "-o", str(bundle), "--sign", str(key))
    assert packed.code == 0, packed.err
    public = packed.err.split("--require-signature ")[1].split()[0]
    for required in (public, str(key.with_suffix(".pub"))):
        run = watch(command, bundle, "--require-signature", required)
        assert run.code == 0, run.err
        assert sum(line.startswith('{"frame"') for line in run.out.splitlines()) == 2
        assert "bundle: student.zip, signed with the required key" in run.err
    assert watch(command, bundle).code == 0


def replace_member(bundle: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(bundle) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(bundle, "w") as archive:
        for member, kept in members.items():
            archive.writestr(member, content if member == name else kept)


def test_signature_and_checksums_match_openssl_and_sha256sum(
    command: Callable[..., Outcome], run_folder: Path, key: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert command("bundle", str(run_folder), "-o", f"{folder}.zip", "--sign", str(key)).code == 0
    with zipfile.ZipFile(f"{folder}.zip") as archive:
        archive.extractall(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "SHA256SUMS.ed25519",
        "bundle.json",
        "model.int8.onnx",
        "model.onnx",
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    checked = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key.with_suffix(".pub")), "-rawin"]
    signature = ["-in", "SHA256SUMS", "-sigfile", "SHA256SUMS.ed25519"]
    subprocess.run([*checked, *signature], cwd=folder, check=True, capture_output=True)


def test_bundling_is_reproducible(command: Callable[..., Outcome], run_folder: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        assert command("bundle", str(run_folder), "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_default_output_is_in_the_run_folder(command: Callable[..., Outcome], run_folder: Path) -> None:
    packed = command("bundle", str(run_folder))
    assert packed.code == 0
    assert "not signed" in packed.err
    with zipfile.ZipFile(run_folder / "bundle.zip") as archive:
        assert sorted(archive.namelist()) == ["SHA256SUMS", "bundle.json", "model.int8.onnx", "model.onnx"]


def test_only_an_earlier_bundle_is_replaced(command: Callable[..., Outcome], run_folder: Path, tmp_path: Path) -> None:
    first, again = command("bundle", str(run_folder)), command("bundle", str(run_folder))
    assert "earlier bundle" not in first.err and "earlier bundle" in again.err
    (tmp_path / "folder.zip").mkdir()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"a photo")
    (tmp_path / "notes.zip").write_text("no archive at all")
    for name in ("photos.zip", "notes.zip", "folder.zip"):
        before = (tmp_path / name).stat()
        refused = command("bundle", str(run_folder), "-o", str(tmp_path / name))
        assert refused.code == 2 and f"{tmp_path / name} already exists" in refused.err
        assert (tmp_path / name).stat().st_mtime_ns == before.st_mtime_ns


def test_unsigned_or_modified_sources_are_rejected_if_a_signature_is_required(
    command: Callable[..., Outcome], run_folder: Path, key: Path, tmp_path: Path
) -> None:
    public = str(key.with_suffix(".pub"))
    command("bundle", str(run_folder), "-o", str(tmp_path / "unsigned.zip"))
    command("bundle", str(run_folder), "-o", str(tmp_path / "signed.zip"), "--sign", str(key))
    replace_member(tmp_path / "signed.zip", "model.onnx", b"another model")
    for path, message in (
        (run_folder / "model.onnx", "is not a bundle"),
        (tmp_path / "unsigned.zip", "is not signed, but a signature is required"),
        (run_folder, "is not a bundle"),
        (tmp_path / "signed.zip", "was modified"),
        (tmp_path / "none.zip", "The bundle"),
    ):
        run = watch(command, path, "--require-signature", public)
        assert run.code == 2
        assert run.err.startswith("error: ")
        assert message in run.err
        assert run.out == ""
    run = watch(command, tmp_path / "signed.zip", "--require-signature", "12")
    assert "12 is not an Ed25519 public key" in run.err


def test_explain_accepts_a_bundle(command: Callable[..., Outcome], run_folder: Path, tmp_path: Path) -> None:
    bundle, picture, out = tmp_path / "student.zip", tmp_path / "picture.png", tmp_path / "out"
    Image.new("RGB", (60, 40), "orange").save(picture)
    assert command("bundle", str(run_folder), "-o", str(bundle)).code == 0
    own = command("explain", str(bundle), str(picture), "-o", str(out))
    assert own.code == 0, own.err
    assert {path.name for path in out.iterdir()} == {
        f"picture{end}" for end in (".png", ".html", ".svg", ".decision.png")
    }
    estimated = command("explain", str(bundle), str(picture), "--method", "scorecam", "-o", str(out), "--no-page")
    assert estimated.code == 0 and "64 evaluations" in estimated.out, estimated.err
    refused = command("explain", str(run_folder), str(picture), "-o", str(out))
    assert refused.code == 2
    assert f"{run_folder} is a folder" in refused.err
    assert f"Pass the file in it: {run_folder / 'model.int8.onnx'}" in refused.err


@pytest.mark.parametrize("verb", [("inspect",), ("web",), ("bundle",), ("validate", "--data", "photos"), ("export",)])
def test_commands_for_a_model_file_reject_a_bundle(
    command: Callable[..., Outcome],
    run_folder: Path,
    tmp_path: Path,
    verb: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = tmp_path / "student.zip"
    assert command("bundle", str(run_folder), "-o", str(bundle)).code == 0
    (tmp_path / "photos" / "cup").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused = command(*verb, str(bundle))
    assert refused.code == 2
    assert f"{bundle} is a bundle, but a single model file is needed. Unpack it" in refused.err


def test_bench_supports_required_signatures(
    command: Callable[..., Outcome], run_folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "run_benchmark", partial(benchmark.run_benchmark, runs=2))
    required = ("--require-signature", str(key.with_suffix(".pub")))
    command("bundle", str(run_folder), "-o", str(tmp_path / "unsigned.zip"))
    command("bundle", str(run_folder), "-o", str(tmp_path / "signed.zip"), "--sign", str(key))
    measured = command("bench", str(tmp_path / "signed.zip"), *required)
    assert measured.code == 0 and "without map" in measured.out, measured.err
    for path, message in (
        (tmp_path / "unsigned.zip", "is not signed, but a signature is required"),
        (run_folder / "model.onnx", "is not a bundle"),
    ):
        refused = command("bench", str(path), *required)
        assert refused.code == 2 and message in refused.err and refused.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sign", "none.pem"), "`openssl genpkey -algorithm ed25519 -out none.pem`"),
        (("-o", "folder"), "-o folder.zip"),
    ],
)
def test_invalid_arguments_are_single_sentence_errors(
    command: Callable[..., Outcome], run_folder: Path, options: tuple[str, str], message: str
) -> None:
    packed = command("bundle", str(run_folder), *options)
    assert packed.code == 2
    assert packed.err.startswith("error: ")
    assert message in packed.err


def test_invalid_keys_are_rejected(command: Callable[..., Outcome], run_folder: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the key")
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "X25519", "-out", tmp_path / "x.pem"], check=True, capture_output=True
    )
    (tmp_path / "no.pem").write_text("no key")
    for name, message in (("x.pem", "is not an Ed25519 key"), ("no.pem", "private key in PEM format")):
        packed = command("bundle", str(run_folder), "--sign", str(tmp_path / name))
        assert packed.code == 2
        assert message in packed.err


def test_run_without_model_suggests_export(command: Callable[..., Outcome], tmp_path: Path) -> None:
    packed = command("bundle", str(tmp_path))
    assert packed.code == 2
    assert "`kdedge export" in packed.err


def test_missing_cryptography_suggests_installation(
    command: Callable[..., Outcome], run_folder: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    packed = command("bundle", str(run_folder), "--sign", str(key))
    assert packed.code == 3
    assert "pip install cryptography" in packed.err
    assert not (run_folder / "bundle.zip").exists()


def test_older_bundles_and_bundles_for_other_devices_are_rejected(
    command: Callable[..., Outcome], run_folder: Path, key: Path, tmp_path: Path
) -> None:
    def pack(name: str, *options: str) -> Path:
        packed = command("bundle", run_folder, "-o", tmp_path / name, "--sign", key, *options)
        assert packed.code == 0, packed.err
        return tmp_path / name

    required = ("--require-signature", str(key.with_suffix(".pub")), "--device", "raspberry-pi-5")
    assert watch(command, pack("2.zip", "--version", "2", "--device", "raspberry-pi-5"), *required).code == 0
    for bundle, message in (
        (pack("1.zip", "--version", "1"), "version 2 ran here before"),
        (pack("3.zip", "--version", "3", "--device", "raspberry-pi-4"), "is for raspberry-pi-4"),
    ):
        run = watch(command, bundle, *required)
        assert run.code == 2
        assert message in run.err
        assert run.out == ""
        assert watch(command, bundle).code == 0, "without a required signature there is no version check"
    assert command("bundle", run_folder, "-o", tmp_path / "4.zip", "--device", "toaster").code == 2
