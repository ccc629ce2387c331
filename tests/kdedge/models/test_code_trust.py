"""Python files named by data are executed only if the user named them or allowed their content."""

import importlib.util
import json
import marshal
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from training_toys import Outcome, metrics_of, write_flattening, write_scenes

from kdedge.models.code_trust import allow_content
from kdedge.models.custom import make
from kdedge.models.run_folder import BEST, LAST
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import file_sha256

Command = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "data", train=6, val=3)


@pytest.fixture
def run(command: Command, data: Path, tmp_path: Path) -> Path:
    """Train a network from a Python file, then replace the file by one that was not named in this command."""
    name = write_flattening(tmp_path / "typed.py")
    out = tmp_path / "run"
    assert command("train", data, "--model", name, "--epochs", 1, "--batch-size", 6, "--out", out).code == 0
    return stranger(out, tmp_path)


def stranger(run: Path, folder: Path) -> Path:
    """Make a run refer to another file of the same network, which leaves a trace when executed."""
    (folder / "evil.py").write_text(
        (folder / "typed.py").read_text() + f"\nfrom pathlib import Path\nPath({str(folder / 'MARK')!r}).touch()\n"
    )
    record = json.loads((run / "run.json").read_text())
    record["model"] |= {"name": f"{folder / 'evil.py'}:make_model", "code_sha256": file_sha256(folder / "evil.py")}
    (run / "run.json").write_text(json.dumps(record))
    return run


class TestRunFolder:
    def test_export_rejects_untrusted_code_with_its_hash(self, command: Command, run: Path, tmp_path: Path) -> None:
        digest = file_sha256(tmp_path / "evil.py")[:12]
        refused = command("export", run)
        assert refused.code == 2
        assert f"--trust-code {digest}" in refused.err and "evil.py" in refused.err
        assert not (tmp_path / "MARK").exists()
        assert not (run / "model.onnx").exists()
        assert command("export", run, "--trust-code", digest).code == 0
        assert (tmp_path / "MARK").exists()

    def test_distill_does_not_execute_the_teachers_code(
        self, command: Command, data: Path, run: Path, tmp_path: Path
    ) -> None:
        refused = command("distill", data, "--teacher", run, "--student", "resnet8", "--out", tmp_path / "student")
        assert (refused.code, (tmp_path / "MARK").exists()) == (2, False)
        assert not (tmp_path / "student").exists()

    def test_compare_keeps_recorded_metrics(self, command: Command, run: Path, tmp_path: Path) -> None:
        compared = command("compare", run, "-o", tmp_path / "page.html", "--json")
        assert (compared.code, (tmp_path / "MARK").exists()) == (0, False)
        assert json.loads(compared.out)["last"]["epoch"] == metrics_of(run)[-1]["epoch"]
        assert "--trust-code" in compared.err

    def test_code_of_a_recorded_teacher_is_not_executed(self, command: Command, run: Path, tmp_path: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        name = record["model"]["name"]
        record["model"] |= {"name": f"{tmp_path / 'typed.py'}:make_model"}
        record["model"]["code_sha256"] = file_sha256(tmp_path / "typed.py")
        record |= {"kind": "distill", "teacher": {"source": name, "weights": str(run / BEST), "weights_sha256": None}}
        (run / "run.json").write_text(json.dumps(record))
        compared = command("compare", run, "-o", tmp_path / "page.html")
        assert (compared.code, (tmp_path / "MARK").exists()) == (0, False)

    def test_named_file_needs_no_hash(self, command: Command, run: Path, tmp_path: Path) -> None:
        """`--resume` names the network again, so a custom network can be resumed."""
        (run / LAST).unlink()
        record = json.loads((run / "run.json").read_text()) | {"result": None}
        (run / "run.json").write_text(json.dumps(record))
        model = f"{tmp_path / 'evil.py'}:make_model"
        record["request"]["model"] = model
        (run / "run.json").write_text(json.dumps(record))
        data = record["request"]["data"]
        resumed = command("train", data, "--model", model, "--epochs", 1, "--batch-size", 6, "--out", run, "--resume")
        assert (resumed.code, (tmp_path / "MARK").exists()) == (0, True)


class TestModelFile:
    def test_code_named_by_a_model_file_is_never_executed(
        self, command: Command, data: Path, run: Path, tmp_path: Path
    ) -> None:
        """The hash does not help either, since model files are shared more widely than run folders."""
        record = json.loads((run / "run.json").read_text())
        weights, output = tmp_path / "w.safetensors", tmp_path / "model.onnx"
        weights.write_bytes((run / BEST).read_bytes())
        typed = f"{tmp_path / 'typed.py'}:make_model"
        assert command("export", typed, "--weights", weights, "-o", output).code == 0
        model, digest = onnx.load(output), file_sha256(tmp_path / "evil.py")
        (entry,) = (item for item in model.metadata_props if item.key == "kdedge.lineage")
        lineage = json.loads(entry.value)
        lineage["student"] |= {"source": record["model"]["name"], "code_sha256": digest}
        entry.value = json.dumps(lineage)
        onnx.save(model, output)
        for options in ((), ("--trust-code", digest)):
            refused = command("validate", output, "--data", data, "--quick", *options)
            assert (refused.code, (tmp_path / "MARK").exists()) == (2, False)
            assert "--model FILE.py:FUNCTION" in refused.err
        other = command("validate", output, "--data", data, "--quick", "--model", typed)
        assert (other.code, (tmp_path / "MARK").exists()) == (2, False)
        assert "SHA-256" in other.err

    def test_model_option_names_the_network_to_validate(
        self, command: Command, data: Path, run: Path, tmp_path: Path
    ) -> None:
        weights, output = tmp_path / "w.safetensors", tmp_path / "model.onnx"
        weights.write_bytes((run / BEST).read_bytes())
        typed = f"{tmp_path / 'typed.py'}:make_model"
        assert command("export", typed, "--weights", weights, "-o", output).code == 0
        for at, label in enumerate(sorted(path.name for path in (data / "val").iterdir())):
            (data / "val" / label).rename(data / "val" / str(at))  # class names as in the file
        validated = command("validate", output, "--data", data / "val", "--quick", "--model", typed)
        assert validated.code in (0, 4), "few images may not show every bound"
        assert list(tmp_path.rglob("report.json"))


def test_cached_bytecode_is_not_executed(tmp_path: Path) -> None:
    """An archive may contain any `__pycache__`, whose unchecked variant is valid for any source."""
    mark, nets = tmp_path / "MARK", tmp_path / "nets.py"
    nets.write_text("from torch import nn\n\ndef make_model():\n    return nn.Identity()\n")
    evil = compile(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n{nets.read_text()}", nets, "exec")
    cached = Path(importlib.util.cache_from_source(str(nets)))
    cached.parent.mkdir()
    unchecked = (0b01).to_bytes(4, "little") + bytes(8)  # PEP 552
    cached.write_bytes(importlib.util.MAGIC_NUMBER + unchecked + marshal.dumps(evil))
    allow_content(file_sha256(nets))
    make(f"{nets}:make_model")
    assert not mark.exists()


@pytest.mark.parametrize("digest", ["", "abc", "g" * 12, "AB" * 8, "0" * 65])
def test_invalid_hashes_are_rejected(digest: str) -> None:
    with pytest.raises(UsageError, match="12 hexadecimal digits"):
        allow_content(digest)
