"""Metadata: round trip and errors of damaged values."""

import json

import pytest

from kdedge_runtime.errors import MissingDependency, ModelFileError
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

FULL = Metadata(
    labels=("Stoppschild", "停", "yield"),
    input=ImageInput(
        96, 128, (0.5, 0.4, 0.3), (0.2, 0.2, 0.25), resize="squash", crop_fraction=0.875, interpolation="bicubic"
    ),
    outputs=Outputs("cam", "features.12", "gap-linear", 6, 8),
    quantization={"format": "int8 QDQ", "per_channel": True},
    lineage={"teacher": "resnet50"},
    metrics={"top1": 0.91},
    temperature=1.3,
)


def test_metadata_round_trip() -> None:
    assert Metadata.from_props(FULL.to_props()) == FULL


def test_every_value_is_namespaced_json() -> None:
    for key, value in FULL.to_props().items():
        assert key.startswith("kdedge.")
        json.loads(value)


def test_foreign_keys_are_ignored() -> None:
    assert Metadata.from_props(FULL.to_props() | {"author": "someone", "stride": "32"}) == FULL


def test_keys_of_later_versions_are_ignored() -> None:
    props = FULL.to_props() | {"kdedge.licence": '"CC BY 4.0"', "kdedge.note": "not JSON"}
    for key in ("kdedge.input", "kdedge.outputs"):
        props[key] = json.dumps(json.loads(props[key]) | {"later": 1})
    assert Metadata.from_props(props) == FULL


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"kdedge.schema": "2"}, "schema 2"),
        ({"kdedge.labels": "[1, 2"}, "kdedge.labels is not JSON"),
        ({"kdedge.labels": '"abc"'}, "expected list"),
        ({"kdedge.labels": "[]"}, "labels"),
        ({"kdedge.labels": '["a", 2]'}, "labels"),
        ({"kdedge.labels": '["a", "\\ud800"]'}, "surrogates"),
        ({"kdedge.lineage": "[" * 100_000}, "kdedge.lineage is not JSON"),
        ({"kdedge.quantization": "8"}, "expected dict"),
        ({"kdedge.temperature": "Infinity"}, "invalid temperature"),
        ({"kdedge.input": "{}"}, "damaged"),
        ({"kdedge.outputs": '{"methode": "cam"}'}, "'method'"),
        ({"kdedge.outputs": '{"method": ["cam"]}'}, "expected str"),
        ({"kdedge.outputs": '{"method": "cam", "map_height": "7"}'}, "invalid map"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace("0.5, 0.4", "NaN, 0.4")}, "invalid input"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace("0.5, 0.4", '"red", 0.4')}, "must be real number"),
        ({"kdedge.temperature": "0"}, "invalid temperature"),
        ({"kdedge.temperature": '"warm"'}, "invalid temperature"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace("96", "-1")}, "invalid input"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace("squash", "stretch")}, "stretch"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace("0.875", "0")}, "invalid input"),
    ],
)
def test_damaged_metadata_error_names_the_problem(damage: dict[str, str], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Metadata.from_props(FULL.to_props() | damage)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"kdedge.task": '"detect"'}, "task 'detect'"),
        ({"kdedge.input": FULL.to_props()["kdedge.input"].replace('"kind": "image"', '"kind": "sound"')}, "'sound'"),
    ],
    ids=["task", "modality"],
)
def test_missing_package_of_a_task_or_modality_is_named(damage: dict[str, str], message: str) -> None:
    with pytest.raises(MissingDependency, match=message):
        Metadata.from_props(FULL.to_props() | damage)


@pytest.mark.parametrize("key", ["labels", "input", "outputs"])
def test_missing_key_is_a_model_file_error(key: str) -> None:
    props = FULL.to_props()
    del props[f"kdedge.{key}"]
    with pytest.raises(ModelFileError, match=key):
        Metadata.from_props(props)


def test_model_without_metadata_is_rejected() -> None:
    with pytest.raises(ModelFileError, match="kdedge export"):
        Metadata.from_props({"names": "{0: 'cat'}"})
