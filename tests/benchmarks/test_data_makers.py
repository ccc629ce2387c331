"""Benchmark datasets from public archives: classes, splits, sizes and formats."""

import csv
import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path

import gtsrb22
import numpy as np
import pytest
import sample_photos
import tiny_imagenet_20
from PIL import Image

DATA = Path(__file__).parents[3] / "shared" / "data"


def archive(name: str) -> zipfile.ZipFile:
    """Return the reference data, or skip the test if they are not available."""
    if not (DATA / name).is_file():
        pytest.skip(f"needs the reference data {name}")
    return zipfile.ZipFile(DATA / name)


def image(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestTrafficSigns:
    @pytest.fixture
    def original(self, tmp_path: Path) -> Path:
        """Class folders as in the official archive: two complete classes, the others with one track."""
        root = tmp_path / "Images"
        for number in range(43):
            folder = root / f"{number:05}"
            folder.mkdir(parents=True)
            lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
            for track in range(11 if number == 2 else 1):
                for frame in range(30):
                    name, width = f"{track:05}_{frame:05}.ppm", 20 + frame
                    image(width, 21, 1000 * track + frame).save(folder / name)
                    lines.append(f"{name};{width};21;5;6;{width - 5};{frame};{number}")
            (folder / f"GT-{number:05}.csv").write_text("\n".join(lines) + "\n")
        return root

    def test_even_classes_are_split_by_track(self, original: Path, tmp_path: Path) -> None:
        count = gtsrb22.make(original, tmp_path / "out")
        made = [name for name in files_of(tmp_path / "out") if name != "boxes.csv"]
        assert {name.split("/")[1] for name in made} == {f"{number:02}" for number in range(0, 43, 2)}
        tracks: dict[str, set[int]] = defaultdict(set)
        for name in made:
            side, label, file = name.split("/")
            if label == "02":
                tracks[side].add(int(file[:5]))
        assert tracks == {"train": {0, 1, 2, 3, 5, 6, 7, 8, 10}, "val": {4}}
        assert {int(name[-10:-5]) for name in made} == {4, 9, 14, 19, 24, 29}
        assert count == {"train": 6 * (9 + 21), "val": 6}

    def test_pixels_and_boxes_equal_the_originals(self, original: Path, tmp_path: Path) -> None:
        gtsrb22.make(original, tmp_path / "out")
        with Image.open(tmp_path / "out/val/02/00004_00019.webp") as made:
            assert made.format == "WEBP"
            np.testing.assert_array_equal(made, Image.open(original / "00002/00004_00019.ppm"))
        rows = list(csv.reader((tmp_path / "out/boxes.csv").read_text(encoding="utf-8").splitlines()))
        assert rows[0] == ["file", "x1", "y1", "x2", "y2"]
        assert ["val/02/00004_00019.webp", "5", "6", "34", "19"] in rows

    def test_archive_with_other_counts_is_an_error(
        self, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.argv", ["gtsrb22.py", str(original), str(tmp_path / "out")])
        with pytest.raises(SystemExit, match="GTSRB_Final_Training_Images"):
            gtsrb22.main()

    @pytest.mark.data
    def test_reference_data_follow_the_split_rule(self) -> None:
        with archive("gtsrb22.zip") as zipped:
            names = [name.split("/") for name in zipped.namelist() if name.endswith(".webp")]
        found: dict[int, dict[tuple[int, int], str]] = defaultdict(dict)
        for side, label, file in names:
            track, frame = (int(part) for part in Path(file).stem.split("_"))
            found[int(label)][track, frame] = side
        assert list(found) == list(gtsrb22.CLASSES)
        for images in found.values():
            last = max(track for track, _ in images)
            sides = ((track, frame, gtsrb22.side_of(track)) for track in range(last + 1) for frame in gtsrb22.FRAMES)
            assert images == {(track, frame): side for track, frame, side in sides if side is not None}
        assert {side: sum(row[0] == side for row in names) for side in gtsrb22.COUNTS} == gtsrb22.COUNTS

    @pytest.mark.data
    def test_reference_data_are_reproduced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The archive's layout is rebuilt from two of its classes."""
        monkeypatch.setattr(gtsrb22, "CLASSES", (0, 32))
        with archive("gtsrb22.zip") as zipped:
            boxes = list(csv.reader(io.TextIOWrapper(zipped.open("boxes.csv"), newline="")))
            kept = [row for row in boxes[1:] if row[0].split("/")[1] in ("00", "32")]
            for number in (0, 32):
                folder = tmp_path / "Images" / f"{number:05}"
                folder.mkdir(parents=True)
                lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
                for file, *box in (row for row in kept if row[0].split("/")[1] == f"{number:02}"):
                    original = Image.open(zipped.open(file)).convert("RGB")
                    original.save(folder / f"{Path(file).stem}.ppm")
                    size = map(str, original.size)
                    lines.append(";".join([f"{Path(file).stem}.ppm", *size, *box, str(number)]))
                (folder / f"GT-{number:05}.csv").write_text("\n".join(lines))
            gtsrb22.make(tmp_path / "Images", tmp_path / "out")
            assert list(csv.reader((tmp_path / "out/boxes.csv").read_text(encoding="utf-8").splitlines())) == [
                boxes[0],
                *kept,
            ]
            for file, *_ in kept:
                np.testing.assert_array_equal(Image.open(tmp_path / "out" / file), Image.open(zipped.open(file)))


class TestTinyImageNet:
    @pytest.fixture
    def original(self, tmp_path: Path) -> Path:
        """The archive's layout with two images per class and four validation images."""
        root = tmp_path / "tiny-imagenet-200"
        (root / "val" / "images").mkdir(parents=True)
        wnids = [*tiny_imagenet_20.CLASSES, "n99999999"]
        for wnid in wnids:
            folder = root / "train" / wnid
            (folder / "images").mkdir(parents=True)
            for index in range(2):
                image(64, 64, index).save(folder / "images" / f"{wnid}_{index}.JPEG")
            (folder / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n{wnid}_1.JPEG\t1\t2\t3\t4\n")
        for index in range(4):
            image(64, 64, 50 + index).save(root / "val" / "images" / f"val_{index}.JPEG")
        labels = ("n99999999", wnids[3], wnids[0], wnids[3])
        lines = [f"val_{index}.JPEG\t{wnid}\t0\t{index}\t9\t9\n" for index, wnid in enumerate(labels)]
        (root / "val" / "val_annotations.txt").write_text("".join(lines))
        (root / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}, other name\n" for wnid in wnids))
        return root

    def test_twenty_classes_are_copied_in_the_official_split(self, original: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert tiny_imagenet_20.make(original, out) == {"train": 40, "val": 3}
        assert {name.split("/")[1] for name in files_of(out / ".") if name.startswith("train")} == set(
            tiny_imagenet_20.CLASSES
        )
        assert [name for name in files_of(out) if name.startswith("val")] == [
            "val/n01443537/val_2.JPEG",
            "val/n02123045/val_1.JPEG",
            "val/n02123045/val_3.JPEG",
        ]
        copied = (out / "val/n02123045/val_3.JPEG").read_bytes()
        assert copied == (original / "val/images/val_3.JPEG").read_bytes()

    def test_boxes_and_names_are_written(self, original: Path, tmp_path: Path) -> None:
        tiny_imagenet_20.make(original, tmp_path / "out")
        rows = list(csv.reader((tmp_path / "out/boxes.csv").read_text(encoding="utf-8").splitlines()))
        assert rows[:2] == [
            ["file", "x1", "y1", "x2", "y2"],
            ["train/n01443537/n01443537_0.JPEG", "0", "10", "63", "58"],
        ]
        assert rows[-1] == ["val/n02123045/val_3.JPEG", "0", "3", "9", "9"]
        names = json.loads((tmp_path / "out/classes.json").read_text())
        assert names[0] == {"wnid": "n01443537", "name": "name of n01443537, other name"}
        assert len(names) == 20

    @pytest.mark.data
    def test_reference_data_are_reproduced(self, tmp_path: Path) -> None:
        """The archive's layout is rebuilt from all classes."""
        root = tmp_path / "tiny-imagenet-200"
        (root / "val" / "images").mkdir(parents=True)
        with archive("tiny-imagenet-20.zip") as zipped:
            boxes, names = zipped.read("boxes.csv"), zipped.read("classes.json")
            lines: dict[Path, list[str]] = defaultdict(list)
            for file, *box in list(csv.reader(io.StringIO(boxes.decode())))[1:]:
                side, wnid, name = file.split("/")
                folder = root / "train" / wnid if side == "train" else root / "val"
                (folder / "images").mkdir(parents=True, exist_ok=True)
                (folder / "images" / name).write_bytes(zipped.read(file))
                listing = folder / (f"{wnid}_boxes.txt" if side == "train" else "val_annotations.txt")
                lines[listing].append("\t".join([name, *([] if side == "train" else [wnid]), *box]))
            for listing, text in lines.items():
                listing.write_text("\n".join(text))
            (root / "words.txt").write_text("\n".join(f"{row['wnid']}\t{row['name']}" for row in json.loads(names)))
            assert tiny_imagenet_20.make(root, tmp_path / "out") == tiny_imagenet_20.COUNTS
            assert (tmp_path / "out/boxes.csv").read_bytes() == boxes
            assert (tmp_path / "out/classes.json").read_bytes() == names
            for file in (name for name in zipped.namelist() if name.endswith(".JPEG")):
                assert (tmp_path / "out" / file).read_bytes() == zipped.read(file)


class TestSamplePhotos:
    @pytest.mark.parametrize(
        ("size", "expected"), [((500, 375), (341, 256)), ((333, 500), (256, 384)), ((200, 150), (200, 150))]
    )
    def test_shorter_side_is_at_most_256_px(self, size: tuple[int, int], expected: tuple[int, int]) -> None:
        assert sample_photos.small(image(*size, 0)).size == expected

    def test_every_second_class_has_one_photo(self, tmp_path: Path) -> None:
        source = tmp_path / "imagenet-sample-images"
        source.mkdir()
        for index, wnid in enumerate(("n01440764", "n01443537", "n01484850", "n01491361")):
            image(300, 270, index).convert("L" if index == 2 else "RGB").save(source / f"{wnid}_name.JPEG")
        (source / "README.md").write_text("not a photo")
        assert sample_photos.make(source, tmp_path / "out") == 2
        assert files_of(tmp_path / "out") == ["0000_n01440764.jpg", "0002_n01484850.jpg"]
        with Image.open(tmp_path / "out/0002_n01484850.jpg") as made:
            assert (made.format, made.mode, made.size) == ("JPEG", "RGB", (284, 256))

    @pytest.mark.data
    def test_reference_data_have_these_names_and_sizes(self) -> None:
        with archive("imagenet-sample-500.zip") as zipped:
            names = sorted(name for name in zipped.namelist() if name.endswith(".jpg"))
            assert [int(name[:4]) for name in names] == list(range(0, 1000, 2))
            for name in names[::50]:
                with Image.open(zipped.open(name)) as photo:
                    assert (photo.format, photo.mode) == ("JPEG", "RGB")
                    assert min(photo.size) <= sample_photos.SHORT_SIDE_PX
