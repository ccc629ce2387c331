"""Boxes and masks are mapped to the object in the model's input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge.data import FileSample
from kdedge.data.annotations import boxes_beside, object_masks, read_boxes
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(32, 32, (0.5,) * 3, (0.5,) * 3)
HEAD = "file,x1,y1,x2,y2\n"


@pytest.fixture
def samples(tmp_path: Path) -> list[FileSample]:
    """Two images of 64 × 32 px; the model uses their unscaled center crop."""
    found = []
    for name in ("val/cat/1.png", "val/dog/2.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((32, 64, 3), dtype=np.uint8)).save(path)
        found.append(FileSample.below(tmp_path / "data", path))
    return found


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data" / "boxes.csv"
    path.write_text(text)
    return path


def test_box_is_shifted_by_the_crop(tmp_path: Path, samples: list[FileSample]) -> None:
    masks = object_masks(table(tmp_path, HEAD + "val/cat/1.png,20,4,30,12\n"), samples, SPEC)
    assert masks[0] is not None
    expected = np.zeros((32, 32), dtype=bool)
    expected[4:12, 4:14] = True  # 16 px to the left of the crop are cut off
    assert (masks[0] == expected).all()
    assert masks[1] is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_box_is_in_the_upright_image_for_any_orientation(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((40, 80, 3) if orientation < 5 else (80, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "1.jpg", exif=exif)
    sample = FileSample.below(tmp_path, tmp_path / "1.jpg")
    assert sample.read().values.shape == (40, 80, 3)
    (tmp_path / "boxes.csv").write_text(HEAD + "1.jpg,20,0,60,10\n")
    (mask,) = object_masks(tmp_path / "boxes.csv", [sample], SPEC)
    assert mask is not None
    assert mask[:8].all() and not mask[8:].any(), "the upper quarter of the center crop"


def test_several_boxes_form_one_mask(tmp_path: Path, samples: list[FileSample]) -> None:
    path = table(tmp_path, HEAD + "val/cat/1.png,16,0,20,4\nval/cat/1.png,40,28,48,32\n")
    (mask, _) = object_masks(path, samples, SPEC)
    assert mask is not None and mask.sum() == 16 + 32
    assert read_boxes(path) == {"val/cat/1.png": [(16, 0, 20, 4), (40, 28, 48, 32)]}


def test_masks_are_matched_by_name(tmp_path: Path, samples: list[FileSample]) -> None:
    painted = np.zeros((32, 64), dtype=np.uint8)
    painted[4:12, 20:30] = 3  # class index of a palette, not white
    for mode in ("L", "P"):
        path = tmp_path / "masks" / "val/cat/1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(painted)
        if mode == "P":
            picture = picture.convert("P")
            picture.putpalette([0] * 768)
        picture.save(path)
        masks = object_masks(tmp_path / "masks", samples, SPEC)
        assert masks[0] is not None and masks[1] is None
        assert masks[0][4:12, 4:14].all() and masks[0].sum() == 80


def test_names_may_contain_dots(tmp_path: Path) -> None:
    samples = []
    for number in (1, 2):
        for where, value in (("data", 0), ("masks", number - 1)):
            (tmp_path / where).mkdir(exist_ok=True)
            Image.new("L", (32, 32), value).save(tmp_path / where / f"frame.{number}.png")
        samples.append(FileSample.below(tmp_path / "data", tmp_path / "data" / f"frame.{number}.png"))
    first, second = object_masks(tmp_path / "masks", samples, SPEC)
    assert first is not None and not first.any() and second is not None and second.all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,left,top\n", r"no column x1, y1, x2, y2\. Expected file,x1,y1,x2,y2 in its first line"),
        (HEAD + "val/cat/1.png,1,2,3\n", r"line 2: a box needs four numbers"),
        (HEAD + "val/cat/1.png,1,2,3,4\nval/cat/1.png,a,2,3,4\n", "line 3: a box needs four numbers"),
        (HEAD + "val/cat/1.png,5,2,4,4\n", r"line 2: the box ends before it begins\. Expected x1 < x2"),
        (HEAD + "val/cat/1.png,nan,2,4,4\n", "line 2: the box ends before it begins"),
        (HEAD + "other.png,1,2,3,4\n", r"none of the 2 images, such as val/cat/1\.png"),
    ],
)
def test_damaged_table_reports_the_line(tmp_path: Path, samples: list[FileSample], text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        object_masks(table(tmp_path, text), samples, SPEC)


def test_empty_boxes_are_skipped(tmp_path: Path, samples: list[FileSample]) -> None:
    """Tiny-ImageNet has some of these among its 11,000 boxes."""
    flat = table(
        tmp_path, HEAD + f"{samples[0].name},9,12,18,12\n{samples[1].name},2,2,2,9\n{samples[1].name},1,1,9,9\n"
    )
    nowhere, somewhere = object_masks(flat, samples, SPEC)
    assert nowhere is None and somewhere is not None


def test_missing_table_is_an_error(tmp_path: Path, samples: list[FileSample]) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist.*--boxes FILE"):
        object_masks(tmp_path / "nowhere.csv", samples, SPEC)


def test_table_in_or_next_to_the_dataset_is_found(tmp_path: Path, samples: list[FileSample]) -> None:
    assert boxes_beside(str(tmp_path / "data")) is None
    path = table(tmp_path, HEAD)
    assert boxes_beside(str(tmp_path / "data")) == boxes_beside(str(tmp_path / "data" / "val")) == path
    assert boxes_beside("torchvision:CIFAR10:/data") is None
