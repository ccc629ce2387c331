"""Bundles are used only if all of their content is verified."""

import hashlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kdedge_runtime.bundle import (
    BundleError,
    format_checksums,
    load_fastest,
    model_choice,
    open_bundle,
    read_public_key,
)
from kdedge_runtime.bundle.signature import verify_signature
from kdedge_runtime.errors import MissingDependency, ModelFileError, UsageError
from kdedge_runtime.model import Model, is_bundle
from kdedge_runtime.model_source import open_model

VECTORS = {
    "1: no message": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        b"",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    "2: one byte": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    "3: two bytes": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
    "SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").digest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17a"
        "d9bef1177331a704",
    ),
}
"""RFC 8032, section 7.1."""
ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19


@pytest.fixture
def signer() -> tuple[Callable[[bytes], bytes], bytes]:
    """Return a signing function and its public key."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return key.sign, key.public_key().public_bytes_raw()


@pytest.fixture
def folder(model_path: Path, write_model: Callable[..., Path], tmp_path: Path, signer: tuple) -> Path:
    """Return a signed bundle of two models."""
    sign, _ = signer
    path = tmp_path / "bundle"
    path.mkdir()
    shutil.copy(model_path, path / "model.onnx")
    shutil.copy(write_model(gain=4.0), path / "model.int8.onnx")
    seal(path, sign)
    return path


def seal(folder: Path, sign: Callable[[bytes], bytes] | None = None) -> None:
    """Write checksums of a folder and sign them."""
    models = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")}
    (folder / "SHA256SUMS").write_bytes(format_checksums(models))
    if sign is not None:
        (folder / "SHA256SUMS.ed25519").write_bytes(sign((folder / "SHA256SUMS").read_bytes()))


def zipped(folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def refuse(path: Path, key: bytes | None, message: str) -> None:
    with pytest.raises(BundleError, match=message), open_bundle(path, key):
        pytest.fail("it was opened")


class TestSignature:
    @pytest.mark.parametrize("name", VECTORS)
    def test_rfc_8032_vectors_verify_signature(self, name: str) -> None:
        key, message, signature = VECTORS[name]
        assert verify_signature(bytes.fromhex(key), message, bytes.fromhex(signature))

    @pytest.mark.parametrize("name", VECTORS)
    def test_flipped_bits_fail_verification(self, name: str) -> None:
        key, message, signature = (bytes.fromhex(part) if isinstance(part, str) else part for part in VECTORS[name])
        for position in (0, 7, 100, 255):
            assert not verify_signature(flipped(key, position), message, signature)
        for position in (0, 131, 255, 256, 400, 511):
            assert not verify_signature(key, message, flipped(signature, position))
        assert not verify_signature(key, message + b"\0", signature)
        assert not verify_signature(key, message, signature[:-1])

    def test_malleable_signature_is_rejected(self) -> None:
        key, message, signature = VECTORS["2: one byte"]
        raw = bytes.fromhex(signature)
        second = int.from_bytes(raw[32:], "little") + ORDER
        assert not verify_signature(bytes.fromhex(key), message, raw[:32] + second.to_bytes(32, "little"))

    def test_missing_package_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
        key, message, signature = VECTORS["2: one byte"]
        with pytest.raises(MissingDependency, match="pip install cryptography"):
            verify_signature(bytes.fromhex(key), message, bytes.fromhex(signature))
        with pytest.raises(MissingDependency, match=r"--require-signature needs .* `apt install python3-cryptography`"):
            read_public_key(key)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class TestKey:
    HEX = VECTORS["1: no message"][0]

    def test_hex_hex_file_and_pem_give_the_same_key(self, tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_bytes(pem(Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.HEX))))
        (tmp_path / "key.hex").write_text(self.HEX.upper() + "\n")
        for text in (self.HEX, self.HEX.upper(), str(tmp_path / "key.pem"), str(tmp_path / "key.hex")):
            assert read_public_key(text).hex() == self.HEX

    @pytest.mark.parametrize(
        "content", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "\xff", "12"]
    )
    def test_invalid_keys_are_rejected(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "key").write_text(content, encoding="latin-1")
        for text in (str(tmp_path / "key"), str(tmp_path), "none.pem", "x" * 5000, self.HEX[:-1]):
            with pytest.raises(UsageError, match="not an Ed25519 public key"):
                read_public_key(text)

    @pytest.mark.parametrize("coordinate", [0, 1, PRIME - 1, PRIME, PRIME + 1, PRIME + 18])
    @pytest.mark.parametrize("sign", [0, 1])
    def test_non_canonical_and_small_order_keys_are_rejected(self, coordinate: int, sign: int) -> None:
        with pytest.raises(UsageError, match="not an Ed25519 public key"):
            read_public_key((coordinate | sign << 255).to_bytes(32, "little").hex())

    def test_other_kinds_of_key_are_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "x.pem").write_bytes(pem(X25519PublicKey.from_public_bytes(bytes.fromhex(self.HEX))))
        with pytest.raises(UsageError, match="not an Ed25519 public key"):
            read_public_key(str(tmp_path / "x.pem"))


def pem(key: Ed25519PublicKey | X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class TestOpening:
    def test_valid_bundle_yields_its_files(self, folder: Path, signer: tuple) -> None:
        path = zipped(folder)
        assert is_bundle(path)
        for key in (None, signer[1]):
            with open_bundle(path, key) as files:
                assert sorted(files) == ["model.int8.onnx", "model.onnx"]
                for name, file in files.items():
                    assert file.read_bytes() == (folder / name).read_bytes()
                unpacked = files["model.onnx"]
            assert not unpacked.exists(), "unpacked files are removed"

    def test_errors_within_the_block_propagate(self, folder: Path) -> None:
        with pytest.raises(RuntimeError, match="mine"), open_bundle(zipped(folder)):
            raise RuntimeError("mine")

    def test_modified_file_is_rejected(self, folder: Path, signer: tuple) -> None:
        content = bytearray((folder / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.onnx").write_bytes(content)
        path = zipped(folder)
        for key in (None, signer[1]):
            refuse(path, key, r"model\.onnx in .* was modified: its SHA-256 is .*, expected")

    def test_modified_checksums_are_rejected(self, folder: Path, signer: tuple) -> None:
        (folder / "model.onnx").write_bytes((folder / "model.int8.onnx").read_bytes())
        seal(folder)
        path = zipped(folder)
        with open_bundle(path):
            pass  # checksums alone do not detect this
        refuse(path, signer[1], r"was not signed with the key .*, or its SHA256SUMS was modified")

    def test_missing_file_is_rejected(self, folder: Path) -> None:
        (folder / "model.int8.onnx").unlink()
        refuse(zipped(folder), None, r"lacks model\.int8\.onnx, which is listed in its SHA256SUMS")

    def test_unlisted_model_is_rejected(self, folder: Path, signer: tuple) -> None:
        shutil.move(folder / "model.int8.onnx", folder / "kept")
        seal(folder, signer[0])
        shutil.move(folder / "kept", folder / "model.int8.onnx")
        (folder / "notes.txt").write_text("not relevant")
        refuse(zipped(folder), signer[1], r"contains model\.int8\.onnx, which is not listed")
        (folder / "model.int8.onnx").unlink()
        with open_bundle(zipped(folder), signer[1]) as files:
            assert list(files) == ["model.onnx"]

    def test_missing_or_wrong_signature_is_rejected(self, folder: Path, signer: tuple) -> None:
        refuse(zipped(folder), bytes.fromhex(VECTORS["1: no message"][0]), "was not signed with the key d75a980182b1")
        (folder / "SHA256SUMS.ed25519").write_bytes(b"short")
        refuse(zipped(folder), signer[1], "was not signed with the key")
        (folder / "SHA256SUMS.ed25519").write_bytes(bytes(1000))
        refuse(zipped(folder), signer[1], "exceeds 64 bytes")
        (folder / "SHA256SUMS.ed25519").unlink()
        refuse(zipped(folder), signer[1], "is not signed, but a signature is required")

    @pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/model.onnx", "..", ".hidden", "a\\b", ""])
    def test_listed_path_outside_bundle_is_rejected(self, folder: Path, name: str) -> None:
        with (folder / "SHA256SUMS").open("a") as sums:
            sums.write(f"{'0' * 64}  {name}\n")
        refuse(zipped(folder), None, r"outside the bundle|invalid line")

    @pytest.mark.parametrize("name", ["../evil.onnx", "/evil.onnx", "a/evil.onnx", "..\\evil.onnx"])
    def test_archive_member_outside_bundle_is_rejected(self, folder: Path, name: str) -> None:
        path = zipped(folder)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
        refuse(path, None, "which is outside the bundle")

    def test_zip_bomb_is_rejected(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(bytes(50_000_000))
        seal(folder)
        path = zipped(folder, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 1_000_000
        refuse(path, None, r"compressed.*`zip -0`")

    def test_overlapping_members_are_rejected(self, folder: Path) -> None:
        path = zipped(folder)
        content = bytearray(path.read_bytes())
        # The central directory declares every file to be as large as the archive.
        position = content.find(b"PK\x01\x02")
        while position >= 0:
            struct.pack_into("<II", content, position + 20, len(content), len(content))
            position = content.find(b"PK\x01\x02", position + 1)
        path.write_bytes(content)
        refuse(path, None, "more content than its size")

    def test_duplicate_member_is_rejected(self, folder: Path) -> None:
        path = zipped(folder)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(zipfile.ZipInfo("model.onnx"), b"other")
        refuse(path, None, "a file twice")

    def test_duplicate_checksum_is_rejected(self, folder: Path) -> None:
        sums = (folder / "SHA256SUMS").read_text()
        (folder / "SHA256SUMS").write_text(sums + sums.splitlines()[0] + "\n")
        refuse(zipped(folder), None, "lists model.int8.onnx twice")

    def test_damaged_zip_is_rejected(self, folder: Path) -> None:
        path = zipped(folder)
        content = path.read_bytes()
        # The last one lacks its beginning, so zipfile computes negative offsets.
        for broken in (b"", b"PK", content[: len(content) // 2], bytes(len(content)), content[40:]):
            path.write_bytes(broken)
            refuse(path, None, "is damaged or not a .zip")
        changed = bytearray(content)
        changed[5000] ^= 1  # zipfile's checksum detects it first
        path.write_bytes(changed)
        refuse(path, None, "is damaged or not a .zip|was modified")

    def test_other_paths_are_rejected(self, folder: Path, tmp_path: Path) -> None:
        refuse(tmp_path / "none.zip", None, "The bundle .* does not exist")
        sums = folder / "SHA256SUMS"
        sums.unlink()
        refuse(zipped(folder), None, "is not a bundle: it has no SHA256SUMS")
        sums.write_bytes(b"")
        refuse(zipped(folder), None, r"lists no model\. Expected model\.onnx or model\.fp16\.onnx or model\.int8\.onnx")
        sums.write_bytes(bytes(200_000))
        refuse(zipped(folder), None, "exceeds 100,000 bytes")

    def test_folder_is_not_a_bundle(self, folder: Path) -> None:
        assert not is_bundle(folder)
        for signer in (None, VECTORS["1: no message"][0]):
            expected = "--sign KEY" if signer else f"Pass the file in it: {folder / 'model.int8.onnx'}."
            with pytest.raises(ModelFileError, match=re.escape(expected)), open_model(folder, Model.load, signer):
                pytest.fail("it was opened")
        empty = folder.parent / "student"
        empty.mkdir()
        with pytest.raises(ModelFileError, match=re.escape(f"`kdedge export {empty}`")), open_model(empty, Model.load):
            pytest.fail("it was opened")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_documented_commands_create_a_key_pair(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / ".github" / "docs" / "reference" / "device-runtime.md"
    commands = re.findall(r"`(openssl [^`]+)`", page.read_text("utf-8"))
    assert len(commands) == 2
    for command in commands:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    assert len(read_public_key(str(tmp_path / "maker.pub.pem"))) == 32
    with pytest.raises(UsageError, match=re.escape(commands[-1])):
        read_public_key(str(tmp_path / "maker.pem"))


class TestChoice:
    @pytest.mark.parametrize(
        ("plain_ms", "quantized_ms", "chosen"),
        [(10.0, 5.0, "model.int8.onnx"), (10.0, 9.8, "model.onnx"), (10.0, 20.0, "model.onnx")],
    )
    def test_quantized_model_is_chosen_if_faster(
        self, folder: Path, plain_ms: float, quantized_ms: float, chosen: str
    ) -> None:
        with open_bundle(zipped(folder)) as files:
            model = load_fastest(files, Model.load, lambda *_: (plain_ms, quantized_ms))
        assert model.path.name == chosen

    def test_choice_can_be_measured(self, folder: Path) -> None:
        with open_bundle(zipped(folder)) as files:
            assert load_fastest(files, Model.load).path.name in files

    @pytest.mark.parametrize(
        ("first_ms", "runs"),
        [((0.2, 0.3), [5, 50]), ((20.0, 30.0), [5, 20]), ((300.0, 200.0), [5])],
    )
    def test_short_passes_are_measured_more_often(
        self, folder: Path, first_ms: tuple[float, float], runs: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[int] = []

        def timed(*calls: Callable[[], object], runs: int) -> tuple[float, ...]:
            assert [call() for call in calls] and len(calls) == 2
            taken.append(runs)
            return first_ms if len(taken) == 1 else (1.0, 0.5)

        monkeypatch.setattr(model_choice, "latencies_ms", timed)
        with open_bundle(zipped(folder)) as files:
            chosen = load_fastest(files, Model.load).path.name
        assert taken == runs
        assert chosen == ("model.int8.onnx" if len(runs) == 2 or first_ms[1] < first_ms[0] else "model.onnx")

    def test_single_model_is_not_measured(self, folder: Path) -> None:
        (folder / "model.onnx").unlink()
        seal(folder)
        with open_bundle(zipped(folder)) as files:
            model = load_fastest(files, Model.load, lambda *_: pytest.fail("measured"))
        assert model.path.name == "model.int8.onnx"
