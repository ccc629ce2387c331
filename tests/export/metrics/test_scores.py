"""Mean and percentiles of scores, some of them undefined."""

import math

import numpy as np
import pytest

from kdedge_export.metrics.scores import mean, percentile


class TestSummaries:
    SCORES = np.array([4.0, np.nan, 1.0, 3.0, 2.0, 5.0])

    def test_images_without_a_score_are_ignored(self) -> None:
        assert mean(self.SCORES) == 3
        assert percentile(self.SCORES, 25) == 2
        assert percentile(self.SCORES, 90) == pytest.approx(4.6)

    @pytest.mark.filterwarnings("error")
    def test_no_scores_give_nan(self) -> None:
        none = np.full(3, np.nan)
        assert math.isnan(mean(none))
        assert math.isnan(percentile(none, 5))
