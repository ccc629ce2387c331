"""Schedule of explanations: by frame, by prediction and by time budget."""

import numpy as np
import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.stream.schedule import ALWAYS, ExplainSchedule, ExplainScheduler, FpsBudget


def test_valid_cadences_are_parsed() -> None:
    assert ExplainSchedule.parse("always") == ALWAYS
    assert ExplainSchedule.parse("every=5") == ExplainSchedule("every", every=5)
    assert ExplainSchedule.parse("on-change") == ExplainSchedule("on-change")
    assert ExplainSchedule.parse("low-confidence") == ExplainSchedule("low-confidence", below=0.5)
    assert ExplainSchedule.parse("low-confidence=1.0") == ExplainSchedule.parse("low-confidence=1")
    assert ExplainSchedule.parse("low-confidence=0.8") == ExplainSchedule("low-confidence", below=0.8)


@pytest.mark.parametrize(
    "text",
    ["", "never", "every", "every=0", "every=-1", "every=x", "low-confidence=2", "low-confidence=0.0", "always=1"],
)
def test_invalid_cadence_error_lists_the_options(text: str) -> None:
    with pytest.raises(UsageError, match=r"always, every=N .*on-change or low-confidence"):
        ExplainSchedule.parse(text)


def test_every_n_starts_with_first_frame() -> None:
    scheduler = ExplainScheduler(ExplainSchedule("every", every=3))
    assert [scheduler.before(index) for index in range(5)] == [None, "cadence", "cadence", None, "cadence"]


def test_on_change_explains_changed_labels() -> None:
    scheduler = ExplainScheduler(ExplainSchedule("on-change"))
    assert [scheduler.after(label, 0.9) for label in "aabba"] == [None, "cadence", None, "cadence", None]


def test_low_confidence_explains_uncertain_predictions() -> None:
    scheduler = ExplainScheduler(ExplainSchedule("low-confidence", below=0.6))
    assert [scheduler.after("a", probability) for probability in (0.9, 0.59, 0.6)] == ["cadence", None, "cadence"]


class World:
    """Simulated clock and machine with fixed times per frame and explanation."""

    def __init__(self, fps: float, camera_fps: float | None, frame_s: float, explanation_s: float) -> None:
        self.now = 0.0
        self.explained: list[int] = []
        self.indices: list[int] = []
        budget = FpsBudget(fps, live=camera_fps is not None, clock=lambda: self.now)
        self._thinning = ExplainScheduler(budget=budget)
        self._camera_fps, self._frame_s, self._explanation_s = camera_fps, frame_s, explanation_s

    def run(self, until_s: float) -> None:
        """Process the latest camera frame, or every frame of a file, until a time."""
        while self.now < until_s:
            index = self.indices[-1] + 1 if self.indices else 0
            if self._camera_fps is not None:
                index = max(index, int(self.now * self._camera_fps))
                self.now = max(self.now, index / self._camera_fps)
            if self._thinning.before(index) is None:
                self.explained.append(index)
                self.now += self._explanation_s
            self.now += self._frame_s
            self.indices.append(index)

    @property
    def fps(self) -> float:
        return len(self.indices) / self.now


@pytest.mark.parametrize("camera_fps", [None, 30.0])
def test_explanations_are_skipped_to_keep_the_rate(camera_fps: float | None) -> None:
    # 10 frames per second; a frame takes 20 ms and its explanation another 300 ms.
    world = World(10.0, camera_fps, 0.02, 0.3)
    world.run(120)
    assert world.fps == pytest.approx(10, rel=0.02)
    # A camera frame without explanation takes 1/30 s, because of the wait for it.
    share = {None: (0.1 - 0.02) / 0.3, 30.0: (0.1 - 1 / 30) / 0.3}[camera_fps]
    assert len(world.explained) / len(world.indices) == pytest.approx(share, rel=0.15), "the whole time budget is used"
    assert np.ptp(np.diff(world.explained)) <= 2, "evenly spaced"


@pytest.mark.parametrize("camera_fps", [None, 30.0])
def test_within_budget_every_frame_is_explained(camera_fps: float | None) -> None:
    world = World(10.0, camera_fps, 0.02, 0.06)
    world.run(30)
    assert world.explained == world.indices


def test_slow_camera_does_not_cause_skipping() -> None:
    world = World(15.0, 10.0, 0.02, 0.05)
    world.run(30)
    assert world.explained == world.indices == list(range(len(world.indices)))


def test_slow_camera_rarely_drops_frames() -> None:
    world = World(15.0, 10.0, 0.02, 0.5)
    world.run(120)
    lost = world.indices[-1] + 1 - len(world.indices)
    assert 0 < lost < 0.06 * world.indices[-1]
    assert len(world.explained) > 5, "some frames are still explained"


def test_no_budget_never_skips() -> None:
    assert ExplainScheduler().before(0) is ExplainScheduler().before(1000) is None


def test_lead_is_limited_to_one_frame() -> None:
    now = 0.0
    budget = FpsBudget(10.0, live=False, clock=lambda: now)
    for index in range(100):
        budget.take(index)
    now = 0.3
    budget.take(100)
    assert not budget.kept
