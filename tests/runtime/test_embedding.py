"""Embedding models: outputs against their definition, other classes, and files that do not match."""

from pathlib import Path

import numpy as np
import pytest
from embedding_model import CONTRASTS, ID, LABELS, expected_embedding, expected_map, write_embedding_model
from reference_files import with_metadata, with_reference_frames

from kdedge_runtime.devices import load_profile
from kdedge_runtime.diagnostics.device_checks import self_test
from kdedge_runtime.embedding import Embedding
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.onnx_session import check_outputs
from kdedge_runtime.tasks import TASKS

PROTOTYPES = np.float32([[2.0, -1.0, -0.9], [-0.25, 1.0, -1.0], [0.1, 0.1, -0.2], [-3.0, 0.0, 3.0]])
NAMES = ("rust", "leaf", "mustard", "violet")


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


@pytest.fixture
def images(red_spot: np.ndarray) -> np.ndarray:
    """Two images with different embeddings."""
    other = np.roll(red_spot, 1, axis=2)
    other[36:60, 4:28] = (30, 60, 250)
    return np.stack([red_spot, other])


def test_outputs_follow_their_definition(embedding_model: Model, images: np.ndarray) -> None:
    found = embedding_model.predict(images)
    expected = np.stack([expected_embedding(image) for image in images])
    assert found.embedding is not None and found.saliency_map is not None and found.familiarity is not None
    np.testing.assert_allclose(found.embedding, expected, atol=1e-5)
    np.testing.assert_allclose(found.logits, expected @ unit(CONTRASTS).T, atol=1e-5)
    np.testing.assert_array_equal(found.scores, found.logits)
    np.testing.assert_array_equal(found.familiarity, found.logits.max(axis=1))
    assert found.explained_class.tolist() == [0, 2]
    for image, row, top in zip(images, found.saliency_map, (0, 2), strict=True):
        np.testing.assert_allclose(row, expected_map(image, CONTRASTS[top]), atol=1e-4)


def test_model_with_other_classes(embedding_model: Model, images: np.ndarray) -> None:
    model = embedding_model.with_classes(NAMES, PROTOTYPES, threshold=0.995)
    found = model.predict(images)
    expected = np.stack([expected_embedding(image) for image in images])
    similarities = expected @ unit(PROTOTYPES).T
    np.testing.assert_allclose(found.logits, similarities, atol=1e-5)
    np.testing.assert_allclose(found.embedding, expected, atol=1e-5)
    tops = similarities.argmax(axis=1)
    assert tops.tolist() == [0, 3] == found.explained_class.tolist()
    assert found.unknown is not None and found.unknown.tolist() == (similarities.max(axis=1) < 0.995).tolist()
    assert found.unknown.tolist() == [False, True], "both answers occur"
    for index in range(len(NAMES)):
        explained = model.predict(images, class_index=index)
        assert explained.explained_class.tolist() == [index, index] and explained.saliency_map is not None
        for image, row in zip(images, explained.saliency_map, strict=True):
            np.testing.assert_allclose(row, expected_map(image, PROTOTYPES[index]), atol=1e-4)
    assert (model.metadata.labels, model.class_index("violet")) == (NAMES, 3)
    with pytest.raises(UsageError, match="4 classes"):
        model.predict(images, class_index=4)


def test_other_classes_leave_the_model_unchanged(embedding_model: Model, images: np.ndarray) -> None:
    before = embedding_model.predict(images)
    one = embedding_model.with_classes(["violet"], PROTOTYPES[3:])
    assert one.predict(images).logits.shape == (2, 1)
    assert one.session is embedding_model.session
    after = embedding_model.predict(images)
    np.testing.assert_array_equal(after.logits, before.logits)
    assert embedding_model.metadata.labels == LABELS


def test_without_a_threshold_nothing_is_unknown(embedding_model: Model, images: np.ndarray) -> None:
    found = embedding_model.with_classes(["leaf"], PROTOTYPES[1:2]).predict(images)
    assert found.familiarity is not None and (found.familiarity < 0).any()
    assert found.unknown is not None and not found.unknown.any()


def test_length_of_prototypes_has_no_effect(embedding_model: Model, images: np.ndarray) -> None:
    lengths = np.float32([[1e-30], [1e30], [1e-7], [0.5]])
    found = [embedding_model.with_classes(NAMES, rows).predict(images) for rows in (PROTOTYPES, lengths * PROTOTYPES)]
    np.testing.assert_allclose(found[0].logits, found[1].logits, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "prototypes", "message"),
    [
        (NAMES, PROTOTYPES[:3], r"\[3, 3\]"),
        (NAMES, np.ones((4, 5), np.float32), r"\[4, 5\].*3 values"),
        ((), np.ones((0, 3), np.float32), "0 class names"),
        (("a", "a"), PROTOTYPES[:2], "1 different"),
        (("a", "b"), np.float32([[1, 1, 0], [0, 0, 0]]), "zero"),
        (("a", "b"), np.float32([[1, np.nan, 0], [0, 1, 0]]), "not finite"),
        (("a",), np.float32([[3e38, np.inf, 0]]), "not finite"),
    ],
)
def test_classes_that_do_not_fit_are_rejected(
    embedding_model: Model, names: tuple[str, ...], prototypes: np.ndarray, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        embedding_model.with_classes(names, prototypes)


def test_classifier_has_fixed_classes(model: Model) -> None:
    with pytest.raises(UsageError, match="--task embedding"):
        model.with_classes(["a"], PROTOTYPES[:1])
    assert model.predict(np.zeros((1, 64, 64, 3), np.uint8)).embedding is None


def test_threshold_needs_familiarity(tmp_path: Path) -> None:
    path = with_metadata(write_embedding_model(tmp_path / "plain.onnx"), familiarity=None)
    model = Model.load(path, threads=1)
    assert model.with_classes(NAMES, PROTOTYPES).metadata.familiarity is None
    with pytest.raises(ModelFileError, match="familiarity"):
        model.with_classes(NAMES, PROTOTYPES, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": "embedding"}, "no output embedding"),
        ({"without": "prototypes"}, "no input prototypes"),
        ({"without": "familiarity"}, "no output familiarity"),
        ({"size": 4}, r"prototypes of .*\['M', 3\].*embedding \['N', 3\] for 4 values.*\[M, 4\]"),
        ({"classes": 3}, "for 3 classes only"),
    ],
)
def test_graph_that_contradicts_metadata_is_rejected(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Model.load(write_embedding_model(tmp_path / "wrong.onnx", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "embedding", [np.zeros((1, 4), np.float32), np.zeros((2, 3), np.float32), np.zeros((1, 3), int)]
)
def test_embedding_of_another_shape_or_type_is_rejected(embedding: np.ndarray) -> None:
    logits = np.zeros((1, 2), np.float32)
    check_outputs(Path("a.onnx"), (1, 2), logits, embedding=np.zeros((1, 3), np.float32), embedding_size=3)
    with pytest.raises(ModelFileError, match=r"embedding is .*expected floats \[1, 3\]"):
        check_outputs(Path("a.onnx"), (1, 2), logits, embedding=embedding, embedding_size=3)


def test_metadata_round_trip(embedding_model: Model, model: Model) -> None:
    props = embedding_model.metadata.to_props()
    found = Metadata.from_props(props)
    assert found == embedding_model.metadata and found.embedding == Embedding(3, ID, 0.6)
    assert model.metadata.embedding is None
    earlier = model.metadata.to_props()
    del earlier["kdedge.embedding"]
    assert Metadata.from_props(earlier) == model.metadata


@pytest.mark.parametrize(
    "damage",
    [
        "null",
        "3",
        "{}",
        '{"size": 3}',
        f'{{"size": 0, "id": "{ID}"}}',
        f'{{"size": true, "id": "{ID}"}}',
        f'{{"size": 3.0, "id": "{ID}"}}',
        f'{{"size": 100000, "id": "{ID}"}}',
        '{"size": 3, "id": "0123456789ABCDEF"}',
        '{"size": 3, "id": "0123"}',
        '{"size": 3, "id": 1}',
        f'{{"size": 3, "id": "{ID}", "threshold": 1.5}}',
        f'{{"size": 3, "id": "{ID}", "threshold": true}}',
        f'{{"size": 3, "id": "{ID}", "threshold": "0.5"}}',
    ],
)
def test_damaged_metadata_is_rejected(embedding_model: Model, damage: str) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        Metadata.from_props(embedding_model.metadata.to_props() | {"kdedge.embedding": damage})


def test_embedding_of_a_classifier_is_rejected(model: Model) -> None:
    with pytest.raises(ModelFileError, match="classify with embedding"):
        Metadata.from_props(model.metadata.to_props() | {"kdedge.embedding": f'{{"size": 3, "id": "{ID}"}}'})


def test_self_test_of_an_embedding_model(tmp_path: Path) -> None:
    model = Model.load(with_reference_frames(write_embedding_model(tmp_path / "reference.onnx")), threads=1)
    checks = {check.name: check.passed for check in self_test(model, load_profile("generic"))}
    assert checks["logits"] is checks["map"] is checks["familiarity"] is True


def test_embeddings_are_split_and_joined(embedding_model: Model, images: np.ndarray) -> None:
    whole = embedding_model.predict(images)
    joined = Explanation.concatenate([whole.of_sample(1), whole.of_sample(0)])
    assert joined.embedding is not None and whole.embedding is not None
    np.testing.assert_array_equal(joined.embedding, whole.embedding[::-1])


@pytest.mark.parametrize(("score", "digits", "text"), [(0.834, 0, "0.83"), (-0.001, 0, "0.00"), (0.8342, 1, "0.83")])
def test_similarity_is_no_percentage(score: float, digits: int, text: str) -> None:
    assert TASKS["embedding"].format_score(score, digits) == text


def test_ranking_and_share_of_similarities() -> None:
    task = TASKS["embedding"]
    scores = np.float32([0.25, -0.5, 0.75, 0.25])
    assert task.ranking(scores, NAMES) == (("mustard", 0.75), ("rust", 0.25), ("violet", 0.25))
    assert task.ranking(scores[:1], NAMES[:1]) == (("rust", 0.25),)
    assert [task.share(score) for score in (-0.5, 0.25, 1.0000001)] == [0.0, 0.25, 1.0]
    np.testing.assert_array_equal(task.scores(scores[None], 3.0), scores[None])
