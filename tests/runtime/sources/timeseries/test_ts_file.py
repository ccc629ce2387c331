"""Parser of the archive's `.ts` files, on the archive's own files and on damaged ones."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timeseries.ts_file import read_ts

ARCHIVE = Path(__file__).parents[5] / "shared" / "data" / "series.zip"
HEADER = "# a comment\n@problemName Toy\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength true\n"
HEADER += "@seriesLength 3\n@classLabel true up down\n@data\n"


def write(folder: Path, text: str) -> Path:
    (folder / "toy.ts").write_text(text)
    return folder / "toy.ts"


def test_cases_are_parsed(tmp_path: Path) -> None:
    content = read_ts(write(tmp_path, HEADER + "1,2,3:4,5,6:down\n\n7,?,9:-1,1e2,0:up\n"))
    assert (content.problem, content.labels, content.targets) == ("Toy", ("up", "down"), (1, 0))
    assert content.values.shape == (2, 3, 2) and content.values[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert np.isnan(content.values[1, 1, 0]) and np.isfinite(content.values[1, :, 1]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "no cases"),
        (HEADER + "1,2,3:4,5,6:left\n", "left.*not a class"),
        (HEADER + "1,2,3:4,5:up\n", "3, 2"),
        (HEADER + "1,2,3:up\n", "1 channels of 3"),
        (HEADER + "1,2,3,4:1,2,3,4:up\n", "2 channels of 4"),
        (HEADER + "1,2,x:4,5,6:up\n", "line 10"),
        (HEADER.replace("@timeStamps false", "@timeStamps true") + "x", "timestamps"),
        (HEADER.replace("@equalLength true", "@equalLength false") + "x", "several lengths"),
        (HEADER.replace("@classLabel true up down", "@targetLabel true") + "1:1", "targets"),
        (HEADER.replace("true up down", "false") + "1:1", "no classes"),
        (HEADER.replace("up down", "up") + "1:1", "two or more"),
        (HEADER.replace("@dimensions 2", "@dimensions two") + "1:1", "@dimensions"),
        (HEADER.replace("@univariate false", "@univariate perhaps") + "1:1", "@univariate"),
        ("1,2,3:up\n", "before @data"),
        ("@problemName Toy\n", "no line @data"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read_ts(write(tmp_path, text))


def test_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.ts").write_bytes(bytes(range(256)))
    with pytest.raises(SourceError, match="UTF-8"):
        read_ts(tmp_path / "film.ts")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape"),
    [("BasicMotions_TRAIN", (40, 100, 6)), ("GunPoint_TEST", (150, 150, 1)), ("ItalyPowerDemand_TRAIN", (67, 24, 1))],
)
def test_files_of_the_archive_equal_aeon(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    if not ARCHIVE.is_file():
        pytest.skip(f"no {ARCHIVE}")
    aeon = pytest.importorskip("aeon.datasets", reason="needs aeon")
    with zipfile.ZipFile(ARCHIVE) as archive:
        path = Path(archive.extract(f"{name}.ts", tmp_path))
    content = read_ts(path)
    values, labels = aeon.load_from_ts_file(str(path))
    assert content.values.shape == shape
    assert np.array_equal(content.values, values.transpose(0, 2, 1).astype(np.float32))
    assert [content.labels[target].lower() for target in content.targets] == [str(label).lower() for label in labels]
