"""Python files that data names: they run only if the user typed them or allowed their content."""

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
    """Train a network of a Python file, then replace the file by one that this command has not named."""
    name = write_flattening(tmp_path / "typed.py")
    out = tmp_path / "run"
    assert command("train", data, "--model", name, "--epochs", 1, "--batch-size", 6, "--out", out).code == 0
    return stranger(out, tmp_path)


def stranger(run: Path, folder: Path) -> Path:
    """Let a run name another file of the same network, which leaves a mark when it runs."""
    (folder / "evil.py").write_text(
        (folder / "typed.py").read_text() + f"\nfrom pathlib import Path\nPath({str(folder / 'MARK')!r}).touch()\n"
    )
    record = json.loads((run / "run.json").read_text())
    record["model"] |= {"name": f"{folder / 'evil.py'}:make_model", "code_sha256": file_sha256(folder / "evil.py")}
    (run / "run.json").write_text(json.dumps(record))
    return run


class TestRunFolder:
    def test_export_refuses_and_names_the_hash_that_allows(self, command: Command, run: Path, tmp_path: Path) -> None:
        digest = file_sha256(tmp_path / "evil.py")[:12]
        refused = command("export", run)
        assert refused.code == 2
        assert f"--trust-code {digest}" in refused.err and "evil.py" in refused.err
        assert not (tmp_path / "MARK").exists()
        assert not (run / "model.onnx").exists()
        assert command("export", run, "--trust-code", digest).code == 0
        assert (tmp_path / "MARK").exists()

    def test_distill_does_not_run_the_code_of_its_teacher(
        self, command: Command, data: Path, run: Path, tmp_path: Path
    ) -> None:
        refused = command("distill", data, "--teacher", run, "--student", "resnet8", "--out", tmp_path / "student")
        assert (refused.code, (tmp_path / "MARK").exists()) == (2, False)
        assert not (tmp_path / "student").exists()

    def test_compare_keeps_the_recorded_figures(self, command: Command, run: Path, tmp_path: Path) -> None:
        compared = command("compare", run, "-o", tmp_path / "page.html", "--json")
        assert (compared.code, (tmp_path / "MARK").exists()) == (0, False)
        assert json.loads(compared.out)["last"]["epoch"] == metrics_of(run)[-1]["epoch"]
        assert "--trust-code" in compared.err

    def test_the_code_of_a_recorded_teacher_does_not_run(self, command: Command, run: Path, tmp_path: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        name = record["model"]["name"]
        record["model"] |= {"name": f"{tmp_path / 'typed.py'}:make_model"}
        record["model"]["code_sha256"] = file_sha256(tmp_path / "typed.py")
        record |= {"kind": "distill", "teacher": {"source": name, "weights": str(run / BEST), "weights_sha256": None}}
        (run / "run.json").write_text(json.dumps(record))
        compared = command("compare", run, "-o", tmp_path / "page.html")
        assert (compared.code, (tmp_path / "MARK").exists()) == (0, False)

    def test_a_typed_file_of_the_same_content_needs_no_hash(self, command: Command, run: Path, tmp_path: Path) -> None:
        """`--resume` types the network again, so an own network goes on as it began."""
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
    def test_code_that_a_file_names_never_runs(self, command: Command, data: Path, run: Path, tmp_path: Path) -> None:
        """Also not with its hash: a model file travels further than a run folder."""
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

    def test_the_typed_network_of_a_file_is_validated(
        self, command: Command, data: Path, run: Path, tmp_path: Path
    ) -> None:
        weights, output = tmp_path / "w.safetensors", tmp_path / "model.onnx"
        weights.write_bytes((run / BEST).read_bytes())
        typed = f"{tmp_path / 'typed.py'}:make_model"
        assert command("export", typed, "--weights", weights, "-o", output).code == 0
        for at, label in enumerate(sorted(path.name for path in (data / "val").iterdir())):
            (data / "val" / label).rename(data / "val" / str(at))  # as the file calls its classes
        validated = command("validate", output, "--data", data / "val", "--quick", "--model", typed)
        assert validated.code in (0, 4), "few images may not show every bound"
        assert list(tmp_path.rglob("report.json"))


def test_cached_bytecode_is_not_run_in_place_of_an_allowed_file(tmp_path: Path) -> None:
    """An archive can bring any `__pycache__`, whose unchecked kind is valid beside any source."""
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
def test_what_is_no_hash_is_refused(digest: str) -> None:
    with pytest.raises(UsageError, match="12 hexadecimal digits"):
        allow_content(digest)
