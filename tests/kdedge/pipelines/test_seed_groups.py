"""Grouping of runs that differ only in their seed, and comparability warnings."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_toys import epoch_line, make_run

from kdedge.config.train_config import TrainConfig
from kdedge.pipelines.run_history import RunHistory, read_histories
from kdedge.pipelines.seed_groups import Spread, comparability_warnings, group_by_seed, spread
from kdedge.reports.run_figures import Column, format_figure, format_spread, group_figure

KD = {"ce": 0.1, "kd": 0.9}


def runs_of(folder: Path, settings: dict[str, dict[str, Any]]) -> tuple[RunHistory, ...]:
    return read_histories([make_run(folder / name, **options) for name, options in settings.items()])


def grouped(folder: Path, settings: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {group.name: [run.name for run in group.runs] for group in group_by_seed(runs_of(folder, settings))}


class TestGroups:
    def test_groups_differ_only_in_the_seed(self, tmp_path: Path) -> None:
        teachers = [
            {"source": name, "weights": None, "weights_sha256": sha256(name.encode()).hexdigest()}
            for name in ("t", "u")
        ]
        found = grouped(
            tmp_path,
            {
                "kd-0": {"loss": KD, "teacher": teachers[0]},
                "alone": {},
                "kd-1": {"loss": KD, "teacher": teachers[0], "seed": 1, "request": {"seed": 1, "lr": 0.1}},
                "kd-2": {"loss": KD, "teacher": teachers[0], "seed": 2, "finished": False},
                "kd-3": {"loss": KD, "teacher": teachers[1], "seed": 3},
                "kd-4": {"loss": KD, "teacher": teachers[0], "seed": 4, "fingerprint": "e" * 64},
                "kd-5": {"loss": KD, "teacher": teachers[0], "seed": 5, "request": {"weights": "w.pth"}},
                "alone-1": {"seed": 1, "request": TrainConfig("d", "m", recipe="labels").given},
            },
        )
        assert list(found.values()) == [
            ["kd-0", "kd-1"],
            ["alone", "alone-1"],
            ["kd-2"],  # not complete
            ["kd-3"],  # another teacher
            ["kd-4"],  # other images
            ["kd-5"],  # other initial weights
        ]

    def test_measured_weights_are_equal_settings(self, tmp_path: Path) -> None:
        losses = [KD | {"at": 900.0}, KD | {"at": 870.0}]
        for measured, expected in ((("at",), ["{0,1}"]), ((), ["0", "1"])):
            settings = {
                str(seed): {"loss": loss, "measured": measured, "seed": seed} for seed, loss in enumerate(losses)
            }
            assert list(grouped(tmp_path / str(measured), settings)) == expected

    @pytest.mark.parametrize(
        ("names", "common"),
        [
            (["kd-0", "kd-1", "kd-2"], "kd-{0,1,2}"),
            (["kd-10", "kd-11"], "kd-{10,11}"),
            (["s0/kd", "s1/kd"], "s{0,1}/kd"),
            (["kd", "kd-1"], "kd{,-1}"),
            (["x", "y"], "{x,y}"),
            ([f"kd-{seed}" for seed in range(9)], "kd-{0,1,2,…}"),
        ],
    )
    def test_group_name_is_the_common_pattern(self, tmp_path: Path, names: list[str], common: str) -> None:
        assert list(grouped(tmp_path, {name: {"seed": seed} for seed, name in enumerate(names)})) == [common]

    def test_mean_and_sample_standard_deviation(self, tmp_path: Path) -> None:
        top1 = [0.5, 0.6, 0.85]
        settings = {str(seed): {"seed": seed, "epochs": [epoch_line(1, value)]} for seed, value in enumerate(top1)}
        (group,) = group_by_seed(runs_of(tmp_path, settings))
        found = group_figure(group, Column("val", "best", "top1"))
        assert found is not None
        assert found.mean == pytest.approx(np.mean(top1))
        assert found.deviation == pytest.approx(np.std(top1, ddof=1))
        assert format_spread("top1", found) == "65.0 ± 18.0"
        assert group_figure(group, Column("val", "best", "map_pearson")) is None

    def test_missing_metric_has_no_mean(self) -> None:
        assert spread([0.5, None]) is None
        assert spread([0.5]) == Spread(0.5, None)

    def test_metrics_are_formatted_in_their_unit(self) -> None:
        assert [format_figure("top1", 0.98765), format_figure("map_pearson", -0.12), format_figure("top1", None)] == [
            "98.8",
            "−0.120",
            "",
        ]


class TestDoubts:
    def warnings(self, folder: Path, settings: dict[str, dict[str, Any]]) -> list[str]:
        runs = runs_of(folder, settings)
        return comparability_warnings(runs, group_by_seed(runs))

    def test_seeds_of_one_setting_have_no_warning(self, tmp_path: Path) -> None:
        assert self.warnings(tmp_path, {"a": {}, "b": {"seed": 1}, "c": {"loss": KD}}) == []

    def test_different_validation_images_are_a_warning(self, tmp_path: Path) -> None:
        (warnings,) = self.warnings(tmp_path, {"a": {}, "b": {"fingerprint": "e" * 64, "data": Path("/else")}})
        assert "different samples, so metrics are not comparable" in warnings
        assert "18 samples of /else: b" in warnings

    def test_different_teachers_are_a_warning(self, tmp_path: Path) -> None:
        one, two = (
            {"source": f"/{name}", "weights": None, "weights_sha256": sha256(name.encode()).hexdigest()}
            for name in ("t", "u")
        )
        assert self.warnings(tmp_path / "fine", {"teacher": {}, "a": {"teacher": one}}) == []
        (warnings,) = self.warnings(tmp_path / "odd", {"a": {"teacher": one}, "b": {"teacher": two}})
        assert "different teachers. Agreement and map Pearson" in warnings and "t: a; u: b" in warnings

    def test_repeated_seed_is_a_warning(self, tmp_path: Path) -> None:
        (warnings,) = self.warnings(tmp_path, {"a": {}, "b": {}})
        assert "the same settings and the same seed" in warnings
