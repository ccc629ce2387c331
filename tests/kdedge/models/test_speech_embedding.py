"""Google's speech embedding equals its published files, and is a teacher with maps."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

from kdedge.models.speech_embedding import SpeechEmbedding, read_speech_embedding, speech_embedding_input
from kdedge_export.modalities.log_mel import LogMel
from kdedge_export.modalities.rendered_sounds import render_sounds
from kdedge_export.saliency import make_explained
from kdedge_runtime.errors import UsageError

WEIGHTS = Path(__file__).parents[3].parent / "shared" / "data" / "weights"
MELS, EMBEDDING = (WEIGHTS / f"google-speech-embedding-{name}.onnx" for name in ("melspectrogram", "embedding_model"))
SPEC = speech_embedding_input(1.0)
_PUBLISHED_FRAMES, _CENTER = 76, 12


@pytest.mark.data
def test_features_and_embedding_equal_the_published_files() -> None:
    if not EMBEDDING.exists():
        pytest.skip(f"the reference data are not at {WEIGHTS}")
    sounds = render_sounds(SPEC, 4, np.random.default_rng(0))
    features = LogMel(SPEC)(torch.from_numpy(sounds))
    mels, embedding = (ort.InferenceSession(str(path)) for path in (MELS, EMBEDDING))
    network = SpeechEmbedding(2).eval()
    network.load_state_dict(read_speech_embedding(EMBEDDING), strict=False)
    for sound, ours in zip(sounds, features, strict=True):
        padding = (SPEC.n_fft - SPEC.frame_hop) // 2
        (published,) = mels.run(None, {"input": (np.pad(sound, padding) * 2**15)[None]})
        floor = float(ours.max()) - 8
        assert np.abs(published.squeeze() / 10 - np.maximum(ours[0].numpy().T, floor)).max() < 1e-3
        part = (published.squeeze() / 10 + 2)[_CENTER : _CENTER + _PUBLISHED_FRAMES]
        (expected,) = embedding.run(None, {"input_1": part[None, :, :, None]})
        with torch.no_grad():
            found = network.embed(torch.from_numpy(part.T[None, None].copy()))
        assert found.shape == (1, 96, 1, 1)
        assert np.abs(found.numpy().ravel() - expected.ravel()).max() < 1e-3 * np.abs(expected).max()


def test_map_distinguishes_frequencies_and_times() -> None:
    network = SpeechEmbedding(3).eval()
    example = torch.randn(1, 3, SPEC.mel_bands, SPEC.frames)
    explained = make_explained(network, example)
    output = explained(example)
    maps = explained.class_maps(output, torch.tensor([[0, 2]]))
    assert explained.target_layer == SpeechEmbedding.target_layer
    assert maps.shape == (1, 2, 4, 25) and bool((maps[:, 0] != maps[:, 1]).any())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.onnx")
    for path in (tmp_path / "text.onnx", tmp_path / "other.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(UsageError, match=r"embedding_model\.onnx"):
            read_speech_embedding(path)
