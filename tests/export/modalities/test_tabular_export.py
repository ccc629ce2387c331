"""Drawings of rows in reports."""

from pathlib import Path

import numpy as np

from kdedge_export.metrics.file_predictions import Predictions
from kdedge_export.modalities import modality_of
from kdedge_export.validation.page.sample_choice import Section
from kdedge_export.validation.page.sample_gallery import gallery_rows
from kdedge_export.validation.samples import SampleGallery
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.drawing.waterfall import draw_row
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.precision import PRECISIONS

COUNT = 20
SPEC = TabularInput(
    tuple(TableColumn(f"column {place}", "numeric", edges=(0.0, 1.0), reference=(0.5,)) for place in range(COUNT))
)
ROW = np.arange(COUNT, dtype=np.float32)
LAST = np.linspace(0, 1, COUNT, dtype=np.float32)[None]


def test_row_shows_the_columns_of_the_bars() -> None:
    modality = modality_of(SPEC)
    plain, barred = modality.thumbnail(ROW), modality.thumbnail(ROW, [LAST])
    np.testing.assert_array_equal(plain, draw_row(SPEC, ROW, places=range(12)))
    np.testing.assert_array_equal(barred, draw_row(SPEC, ROW, places=[0, 1, 2, 3, 4, *range(13, 20)]))
    both = modality.thumbnail(ROW, [LAST, LAST[:, ::-1]])
    np.testing.assert_array_equal(both, draw_row(SPEC, ROW, places=[*range(7), *range(13, 20)]))


def test_gallery_shows_the_columns_of_all_models() -> None:
    files = [Candidate.of_file(PRECISIONS[name], Path(f"{name}.onnx")) for name in ("fp32", "int8")]
    maps = {"fp32": LAST[None], "int8": LAST[None, :, ::-1]}
    predictions = {
        name: Predictions(np.array([[1.0, 0.0]], np.float32), each, np.zeros(1, np.int64))
        for name, each in maps.items()
    }
    evidence = SampleGallery(
        modality=modality_of(SPEC),
        task="classify",
        samples=ROW[None],
        targets=None,
        labels=("yes", "no"),
        names=("row 1",),
        candidates=tuple(files),
        predictions=predictions,
        scores={name: np.array([[0.9, 0.1]], np.float32) for name in maps},
        pearson={},
        shifts={},
    )
    (shown,) = gallery_rows(Section("all", "all", (0,)), evidence)
    modality = evidence.modality
    assert shown.image == modality.figure_uri(modality.thumbnail(ROW, [LAST, LAST[:, ::-1]]))
