"""Ablation of the map loss: its split and its recipes."""

import tomllib
from pathlib import Path

import map_loss

import kdedge


def test_split_is_by_track_and_excludes_validation_images(tmp_path: Path) -> None:
    for side, tracks in (("train", (0, 3, 8, 10, 13)), ("val", (4,))):
        for track in tracks:
            file = tmp_path / "gtsrb22" / side / "02" / f"{track:05}_00004.webp"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"image")
    for _ in range(2):
        map_loss.split(tmp_path / "gtsrb22", tmp_path / "data")
    made = {str(link.relative_to(tmp_path / "data")) for link in (tmp_path / "data").rglob("*.webp")}
    assert made == {
        *("train/02/00000_00004.webp", "train/02/00010_00004.webp"),
        *("val/02/00003_00004.webp", "val/02/00008_00004.webp", "val/02/00013_00004.webp"),
    }
    assert (tmp_path / "data/val/02/00003_00004.webp").read_bytes() == b"image"


def test_weight_and_number_of_classes_are_varied_separately() -> None:
    losses = {name: tomllib.loads(text)["loss"] for name, text in map_loss.TERMS.items()}
    assert losses["KD"] == {"ce": 0.1, "kd": 0.9}
    terms = [loss["mapall"] for loss in losses.values() if "mapall" in loss]
    assert [(term["weight"], term["classes"]) for term in terms] == [
        (5, 32),
        (20, 32),
        (60, 32),
        (200, 32),
        (20, 1),
        (20, 4),
    ]


def test_mixed_images_use_the_recipe_few_images() -> None:
    shipped = tomllib.loads((Path(kdedge.__file__).parent / "config/recipes/few-images.toml").read_text())
    mixed = [recipe for recipe in map(tomllib.loads, map_loss.MIXTURES.values()) if "augmentation" in recipe]
    assert [recipe["augmentation"] for recipe in mixed] == [shipped["augmentation"]] * 2
    assert ["mapall" in recipe["loss"] for recipe in mixed] == [False, True]
