"""`kdedge demo --modality timeseries`: its dataset and its whole path with few samples."""

from pathlib import Path

import numpy as np
import pytest
from training_toys import Listener

from kdedge.data import index_dataset
from kdedge.data.series_samples import WindowSample
from kdedge.demo import demo_run
from kdedge.demo.demo_scenario import DemoSizes
from kdedge.demo.timeseries_demo import TIMESERIES, TimeseriesDemo

TINY = DemoSizes(train=16, val=2, unseen=4, teacher_epochs=1, student_epochs=1, frames=4)


def test_dataset_has_masks_by_name(tmp_path: Path) -> None:
    masks = TIMESERIES.write(tmp_path, 2, 3, seed=0)
    dataset = index_dataset(tmp_path)
    assert dataset.modality == "timeseries" and dataset.labels == TIMESERIES.labels
    assert {sample.name for sample in dataset.val.samples} == masks.keys() and len(dataset.train) == 8
    sample = dataset.val.samples[0]
    assert isinstance(sample, WindowSample) and sample.layout.rate_hz == 50 and sample.layout.units == ("g",) * 3
    assert masks[sample.name].shape == sample.values.T.shape
    again = TIMESERIES.write(tmp_path / "again", 2, 3, seed=0)
    assert all(np.array_equal(masks[name], again[name]) for name in masks)


@pytest.mark.slow
@pytest.mark.usefixtures("operators_listed_once")
def test_demo_runs_to_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeseriesDemo, "sizes", TINY)
    result = demo_run.run_demo("timeseries", tmp_path / "demo", Listener(), lambda _: None)
    assert len(result.rows) == 4 and 0.03 < result.mask_share < 0.2
    assert all(0 <= row.energy_inside <= 1 for row in result.rows)
    assert (tmp_path / "demo" / "overlay.mp4").stat().st_size > 1000
