"""Which frames are explained: by turn, by answer, and by the time that there is."""

import pytest

from kdedge_runtime.cadence import ALWAYS, Cadence, Thinning, TimeAccount
from kdedge_runtime.errors import UsageError


def test_what_users_type_is_read() -> None:
    assert Cadence.parse("always") == ALWAYS
    assert Cadence.parse("every=5") == Cadence("every", every=5)
    assert Cadence.parse("on-change") == Cadence("on-change")
    assert Cadence.parse("low-confidence") == Cadence("low-confidence", below=0.5)
    assert Cadence.parse("low-confidence=0.8") == Cadence("low-confidence", below=0.8)


@pytest.mark.parametrize(
    "text",
    ["", "never", "every", "every=0", "every=-1", "every=x", "low-confidence=2", "low-confidence=0.0", "always=1"],
)
def test_anything_else_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"always, every=N .*on-change, low-confidence"):
        Cadence.parse(text)


def test_every_third_frame_begins_with_the_first() -> None:
    thinning = Thinning(Cadence("every", every=3))
    assert [thinning.before() for _ in range(5)] == [None, "cadence", "cadence", None, "cadence"]


def test_an_answer_is_explained_when_it_changes() -> None:
    thinning = Thinning(Cadence("on-change"))
    assert [thinning.after(label, 0.9) for label in "aabba"] == [None, "cadence", None, "cadence", None]


def test_only_unsure_answers_are_explained() -> None:
    thinning = Thinning(Cadence("low-confidence", below=0.6))
    assert [thinning.after("a", probability) for probability in (0.9, 0.59, 0.6)] == ["cadence", None, "cadence"]


def test_an_account_is_covered_while_frames_take_no_more_than_their_time() -> None:
    account = TimeAccount(0.1)
    assert account.covered
    account.spend(0.25)
    assert not account.covered
    account.spend(0.02)
    assert not account.covered
    account.spend(0.02)
    assert account.covered, "0.25 + 2 x 0.02 s are within three periods"


def test_idle_time_is_not_hoarded() -> None:
    account = TimeAccount(0.1)
    for _ in range(100):
        account.spend(0.0)
    account.spend(0.35)
    assert not account.covered


def test_without_a_budget_time_plays_no_part() -> None:
    thinning = Thinning()
    thinning.model_time.spend(1e6)
    thinning.output_time.spend(1e6)
    assert thinning.before() is None


@pytest.mark.parametrize("side", ["model_time", "output_time"])
def test_over_budget_explanations_thin_to_what_the_time_allows(side: str) -> None:
    # 10 frames a second; a frame takes 20 ms, its explanation 300 ms more.
    thinning = Thinning(budget_fps=10)
    explained = 0
    for _ in range(500):
        left_out = thinning.before()
        explained += left_out is None
        getattr(thinning, side).spend(0.02 + (0.3 if left_out is None else 0.0))
        other = "output_time" if side == "model_time" else "model_time"
        getattr(thinning, other).spend(0.01)
    busy_s = 500 * 0.02 + explained * 0.3
    assert busy_s <= 500 / 10 + 0.3, "but for the one that is being won back"
    assert explained >= 500 * 0.08 / 0.3, "0.08 s are left of a frame's time, and all of it is used"
