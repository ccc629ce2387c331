"""Published weights: found, downloaded from a loopback server, verified, and converted for the network."""

import gc
import io
import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load, save
from torchvision.models import get_model
from weight_server import WeightServer, publish_timm, publish_torchvision

from kdedge.models import weights_download
from kdedge.models.network_weights import find_weights, reload_weights
from kdedge.models.published_weights import find_published
from kdedge.models.trained_model import load_trained
from kdedge.models.weights_download import fetch_from_url
from kdedge_runtime.errors import UsageError

TIMM = "timm:test_efficientnet"
REPOSITORY = "timm/test_efficientnet.r160_in1k"


def fails(name: str, *parts: str) -> str:
    """Find weights that cannot be obtained, and return the message, which names every way out."""
    with pytest.raises(UsageError) as caught:
        find_weights(name)
    message = str(caught.value)
    for part in (*parts, "--weights FILE", "--teacher-weights FILE", "--no-pretrained"):
        assert part in message, (part, message)
    assert "\n" not in message
    return message


class TestFinding:
    def test_default_of_the_library_and_a_tag(self) -> None:
        default, first = find_published("resnet50"), find_published("torchvision:resnet50.IMAGENET1K_V1")
        assert default is not None and first is not None
        assert default.network == "torchvision:resnet50.IMAGENET1K_V2" and "resnet50-11ad3fa6.pth" in default.url
        assert first.network == "torchvision:resnet50.IMAGENET1K_V1" and "resnet50-0676ba61.pth" in first.url
        assert default.license is None, "torchvision states none"

    def test_license_of_the_library(self) -> None:
        convnext, swag = find_published("timm:convnextv2_tiny"), find_published("vit_b_16.IMAGENET1K_SWAG_LINEAR_V1")
        assert convnext is not None and swag is not None
        assert (convnext.license, convnext.url.partition("/timm/")[2]) == (
            "cc-by-nc-4.0",
            "convnextv2_tiny.fcmae_ft_in22k_in1k",
        )
        assert swag.license is not None and swag.license.endswith("LICENSE")

    @pytest.mark.parametrize("name", ["resnet8", "timm:botnet50ts_256"])
    def test_networks_without_published_weights(self, name: str) -> None:
        assert find_published(name) is None
        assert find_weights(name) is None
        with pytest.raises(UsageError, match=rf"{name} has no published weights\. .*--weights FILE.*--pretrained"):
            find_weights(name, pretrained=True)

    @pytest.mark.parametrize(("pretrained", "option"), [(True, "Remove --pretrained"), (False, "Remove --no-pretrai")])
    def test_a_file_contradicts_both_options(self, tmp_path: Path, pretrained: bool, option: str) -> None:
        with pytest.raises(UsageError, match=option):
            find_weights("resnet18", tmp_path / "w.pth", pretrained=pretrained)

    def test_random_weights_on_request_without_a_connection(self, weight_server: WeightServer) -> None:
        assert find_weights("resnet18", pretrained=False) is None
        assert weight_server.requests == []


class TestHuggingFace:
    def test_download_and_cache(self, weight_server: WeightServer) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        found = find_weights(TIMM)
        assert found is not None and found.file.read_bytes() == content
        assert (found.network, found.license) == (f"{TIMM}.r160_in1k", "apache-2.0")
        assert found.url == f"{weight_server.address}/{REPOSITORY}"
        for part in ("r160_in1k of timm", found.url, "license apache-2.0"):
            assert part in found.summary
        weight_server.requests.clear()
        assert find_weights(TIMM) == found
        assert weight_server.requests == [], "a cached file needs no connection"

    def test_older_file_name(self, weight_server: WeightServer) -> None:
        buffer = io.BytesIO()
        torch.save(timm.create_model("test_efficientnet").state_dict(), buffer)
        weight_server.publish(REPOSITORY, "pytorch_model.bin", buffer.getvalue())
        found = find_weights(TIMM)
        assert found is not None and found.file.name == "pytorch_model.bin"
        assert load_trained(TIMM).weights == found

    def test_half_a_file_in_the_cache_is_replaced(self, weight_server: WeightServer) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        found = find_weights(TIMM)
        assert found is not None
        found.file.resolve().write_bytes(content[: len(content) // 2])
        assert find_weights(TIMM) == found and found.file.read_bytes() == content

    def test_half_a_file_in_the_cache_without_a_connection(
        self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        found = find_weights(TIMM)
        assert found is not None
        found.file.resolve().write_bytes(content[:1000])
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        fails(TIMM, "model.safetensors", "damaged in the cache", str(tmp_path / "hub"))

    def test_offline(self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        url = f"{weight_server.address}/{REPOSITORY}"
        fails(TIMM, "model.safetensors", str(tmp_path / "hub"), url, "not in the cache")
        assert weight_server.requests == []

    def test_no_server(self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> None:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(weight_server.address, "http://127.0.0.1:9")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        fails(TIMM, "not in the cache", "refused")

    def test_no_repository_and_no_file(self, weight_server: WeightServer) -> None:
        fails(TIMM, "404")
        weight_server.publish(REPOSITORY, "README.md", b"")
        fails(TIMM, "no such file")

    def test_wrong_content(self, weight_server: WeightServer) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        weight_server.announced = content
        weight_server.publish(REPOSITORY, "model.safetensors", content[::-1])
        fails(TIMM, "wrong hash")
        weight_server.publish(REPOSITORY, "model.safetensors", content)
        found = find_weights(TIMM)
        assert found is not None and found.file.read_bytes() == content

    @pytest.mark.slow
    def test_interrupted_download_leaves_no_file(self, weight_server: WeightServer, tmp_path: Path) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        weight_server.cut = 1000
        fails(TIMM, "not in the cache")
        assert not list((tmp_path / "hub").rglob("model.safetensors"))
        weight_server.cut = None
        found = find_weights(TIMM)
        assert found is not None and found.file.read_bytes() == content


class TestTorchHub:
    @pytest.fixture
    def content(self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> bytes:
        """SqueezeNet's published weights on the server."""
        torch.manual_seed(0)
        state = get_model("squeezenet1_1", weights=None).state_dict()
        return publish_torchvision(weight_server, monkeypatch, "squeezenet1_1", "IMAGENET1K_V1", state)

    def test_download_and_cache(self, weight_server: WeightServer, content: bytes, tmp_path: Path) -> None:
        found = find_weights("squeezenet1_1")
        assert found is not None and found.network == "torchvision:squeezenet1_1.IMAGENET1K_V1"
        assert found.file.parent == tmp_path / "torch" / "hub" / "checkpoints"
        assert found.file.read_bytes() == content
        assert "license not stated by torchvision" in found.summary and weight_server.address in found.summary
        assert "recipe https://github.com/pytorch/vision" in found.summary
        weight_server.requests.clear()
        assert find_weights("squeezenet1_1") == found
        assert weight_server.requests == []

    @pytest.mark.parametrize("damaged", [b"", b"half", None], ids=["empty", "half", "other bytes"])
    def test_damaged_file_in_the_cache_is_replaced(
        self, weight_server: WeightServer, content: bytes, damaged: bytes | None
    ) -> None:
        found = find_weights("squeezenet1_1")
        assert found is not None
        found.file.write_bytes(content[::-1] if damaged is None else damaged)
        assert find_weights("squeezenet1_1") == found and found.file.read_bytes() == content

    def test_damaged_file_in_the_cache_without_a_server(self, weight_server: WeightServer, content: bytes) -> None:
        found = find_weights("squeezenet1_1")
        assert found is not None and found.url is not None
        found.file.write_bytes(b"half")
        weight_server.files.clear()
        fails("squeezenet1_1", found.file.name, str(found.file.parent), found.url, "damaged in the cache", "404")
        assert found.file.read_bytes() == b"half", "nothing is removed without a replacement"

    @pytest.mark.parametrize("change", ["cut", "wrong"])
    def test_wrong_download_leaves_no_file(
        self, weight_server: WeightServer, content: bytes, tmp_path: Path, change: str
    ) -> None:
        (path,) = weight_server.files
        if change == "cut":
            weight_server.cut = 1000
        else:
            weight_server.files[path] = content[::-1]
        fails("squeezenet1_1", path.rpartition("/")[2], "not in the cache", "hash")
        assert not list((tmp_path / "torch").rglob("*.*"))

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves its socket open
    def test_silent_server(self, weight_server: WeightServer, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        monkeypatch.setattr(weights_download, "_TIMEOUT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UsageError, match="timed out"):
            fetch_from_url("net", f"http://127.0.0.1:{silent.getsockname()[1]}/net-0123456789.pth")
        assert socket.getdefaulttimeout() is None
        gc.collect()

    def test_file_without_a_hash_must_be_readable(self, weight_server: WeightServer, tmp_path: Path) -> None:
        """Some of timm's files have no hash in their names."""
        weight_server.files["/IN1K-vit.h.14-300e.pth.tar"] = b"half"
        with pytest.raises(UsageError, match="300e"):
            fetch_from_url("net", f"{weight_server.address}/IN1K-vit.h.14-300e.pth.tar")
        assert not list((tmp_path / "torch").rglob("*.tar"))
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(2)}, buffer)
        weight_server.files["/IN1K-vit.h.14-300e.pth.tar"] = buffer.getvalue()
        assert fetch_from_url("net", f"{weight_server.address}/IN1K-vit.h.14-300e.pth.tar").is_file()

    def test_file_without_a_hash_must_stay_the_same(self, weight_server: WeightServer) -> None:
        """The hash of the first download is recorded; a cached file without a record is of another program."""
        url = f"{weight_server.address}/vit.pth"
        first, other = (save_torch({"w": torch.full((size,), 1.0)}) for size in (2, 500))
        weight_server.files["/vit.pth"] = first
        path = fetch_from_url("net", url)
        path.write_bytes(other)
        assert fetch_from_url("net", url).read_bytes() == first, "downloaded again"
        path.write_bytes(b"damaged")
        weight_server.files["/vit.pth"] = other
        with pytest.raises(UsageError, match="are damaged in the cache"):
            fetch_from_url("net", url)
        path.unlink()
        assert fetch_from_url("net", url).read_bytes() == other, "a new first download"
        path.with_name("vit.pth.sha256").unlink()
        path.write_bytes(first)
        assert fetch_from_url("net", url).read_bytes() == first


def save_torch(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class TestRecord:
    def test_published_weights_are_found_by_name(self, weight_server: WeightServer) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        found = find_weights(TIMM)
        assert found is not None
        record = found.record
        assert record["weights"] is None and record["source"] == f"{TIMM}.r160_in1k"
        assert (record["url"], record["license"]) == (found.url, "apache-2.0")
        assert reload_weights(record, "run") == found
        found.file.resolve().unlink()
        assert reload_weights(record, "run").file.read_bytes() == content, "downloaded again"

    def test_changed_weights(self, weight_server: WeightServer) -> None:
        publish_timm(weight_server, "test_efficientnet")
        found = find_weights(TIMM)
        assert found is not None
        record = found.record | {"weights_sha256": "0" * 64}
        with pytest.raises(UsageError, match="have changed since my run was started"):
            reload_weights(record, "my run")

    def test_file_of_the_user(self, tmp_path: Path) -> None:
        file = tmp_path / "w.safetensors"
        file.write_bytes(save({"w": torch.ones(1)}))
        found = find_weights("small:resnet8", file)
        assert found is not None and found.summary == str(file)
        record = found.record
        assert record == {"source": "small:resnet8", "weights": str(file), "weights_sha256": found.sha256}
        assert reload_weights(record, "run") == found
        file.unlink()
        with pytest.raises(UsageError, match="no longer exist"):
            reload_weights(record, "run")


class TestLoading:
    def test_trained_model(self, weight_server: WeightServer) -> None:
        content = publish_timm(weight_server, "test_efficientnet")
        trained = load_trained(TIMM)
        expected = load(content)
        for name, value in trained.model.state_dict().items():
            assert torch.equal(value, expected[name]), name
        assert trained.weights is not None and trained.assumed_input is None
        assert trained.origin == {
            "source": f"{TIMM}.r160_in1k",
            "weights": str(trained.weights.file),
            "weights_sha256": trained.weights.sha256,
            "url": trained.weights.url,
            "license": "apache-2.0",
        }
        assert (trained.input.height, len(trained.labels)) == (160, 1000)

    @pytest.mark.parametrize("network", ["densenet121", "googlenet", "mnasnet0_5"])
    def test_torchvision_files_of_older_versions(
        self, weight_server: WeightServer, monkeypatch: pytest.MonkeyPatch, network: str
    ) -> None:
        """DenseNet's names had dots, GoogLeNet's file has classifiers for training, and MNASNet checks a version."""
        torch.manual_seed(0)
        options = {"aux_logits": True, "init_weights": True} if network == "googlenet" else {}
        reference = get_model(network, weights=None, **options).eval()
        state = reference.state_dict()
        if network == "densenet121":
            renamed = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): name for name in state}
            assert len(set(renamed) - set(state)) > 100
            state = {new: state[old] for new, old in renamed.items()}
        tag = "IMAGENET1K_V1"
        publish_torchvision(weight_server, monkeypatch, network, tag, state)
        model = load_trained(network).model.eval()
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(model(x), reference(x))

    def test_timm_file_of_an_older_version(self, weight_server: WeightServer) -> None:
        """timm renames the tensors of DeiT's distillation head, among others; see its checkpoint filters."""
        torch.manual_seed(0)
        name, repository = "convnext_atto", timm.get_pretrained_cfg("convnext_atto").hf_hub_id
        reference = timm.create_model(name).eval()
        state = {key.replace("head.norm.", "norm.").replace("head.fc.", "head."): value
                 for key, value in reference.state_dict().items()}  # fmt: skip
        state = {re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", key): value for key, value in state.items()}
        state = {re.sub(r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", key): value
                 for key, value in state.items()}  # fmt: skip
        state = {re.sub(r"^stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", key): value for key, value in state.items()}
        state = {key.replace("conv_dw", "dwconv").replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2"): value
                 for key, value in state.items()}  # fmt: skip
        weight_server.publish(repository, "model.safetensors", save(state))
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(load_trained(f"timm:{name}").model.eval()(x), reference(x))
