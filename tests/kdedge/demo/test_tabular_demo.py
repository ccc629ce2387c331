"""Data of the demonstration for tables: the answer follows from the marked columns."""

from pathlib import Path

import numpy as np

from kdedge.data import index_dataset
from kdedge.data.readers.table_files import RowSample, schema_of
from kdedge.demo import DEMOS
from kdedge.demo.tabular_demo import TABULAR
from kdedge.modalities.tabular_network import fit_input
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.sources.tabular import open_rows


def test_masks_mark_the_columns_that_speak_for_the_answer(tmp_path: Path) -> None:
    masks = TABULAR.write(tmp_path / "data", 20, 30, seed=0)
    teacher = TABULAR.teacher(tmp_path / "data")
    index = index_dataset(tmp_path / "data", teacher.dataset_options)
    assert (len(index.train), len(index.val)) == (40, 60) and index.labels == TABULAR.labels
    assert [sample.name for sample in index.val.samples] == list(masks)
    incomes = []
    for sample, target in index.val.pairs():
        assert isinstance(sample, RowSample)
        mask = masks[sample.name]
        assert mask.shape == (1, 6) and mask.any() and not mask[0, 4:].any()
        income = float(sample.row.cells[0] or 0)
        if abs(income - 2600) > 1:
            assert mask[0, 0] == ((income > 2600) == (target == 1))
        incomes.append(income)
    assert np.ptp(incomes) > 2000
    assert DEMOS["tabular"] is TABULAR


def test_source_has_labeled_rows_and_their_file(tmp_path: Path) -> None:
    TABULAR.write(tmp_path / "data", 20, 20, seed=0)
    index = index_dataset(tmp_path / "data", TABULAR.teacher(tmp_path / "data").dataset_options)
    spec: TabularInput = fit_input(index, schema_of(index.train))
    with TABULAR.source(tmp_path) as source:
        frames = list(source)
    labels = [frame.truth.label for frame in frames if frame.truth is not None]
    assert len(labels) == TABULAR.sizes.frames and set(labels) == set(TABULAR.labels)
    with open_rows(spec, TABULAR.live_source) as again:
        rows = [spec.preprocess(frame.sample) for frame in again]
    np.testing.assert_array_equal(rows, [spec.preprocess(frame.sample) for frame in frames])
