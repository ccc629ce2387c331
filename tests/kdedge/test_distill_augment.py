"""Shifting and mirroring: every pixel comes from where the mirrored-padding reference says."""

import numpy as np
import pytest
import torch

from kdedge.distill.augment import shift_and_flip


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def all_outcomes(picture: np.ndarray, shift: int) -> dict[tuple[int, int, bool], np.ndarray]:
    """What may become of a picture, by rows and columns of shift and by whether it is mirrored: pad, cut, mirror."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    outcomes = {}
    for down in range(2 * shift + 1):
        for right in range(2 * shift + 1):
            outcomes[down - shift, right - shift, False] = padded[down : down + height, right : right + width]
    mirrored = {(down, right, True): cut[:, ::-1] for (down, right, _), cut in outcomes.items()}
    return outcomes | mirrored


def outcome_of(result: np.ndarray, picture: np.ndarray, shift: int) -> tuple[int, int, bool]:
    """The outcome that has every pixel; an unmirrored one where symmetry leaves two."""
    return next(name for name, expected in all_outcomes(picture, shift).items() if np.array_equal(result, expected))


@pytest.mark.parametrize(("height", "width", "shift"), [(8, 8, 2), (7, 10, 3), (5, 6, 4), (9, 6, 1)])
@pytest.mark.parametrize("flip", [True, False])
def test_every_picture_is_one_of_the_possible_outcomes(height: int, width: int, shift: int, flip: bool) -> None:
    before = pictures(40, height, width)
    after = shift_and_flip(before, torch.Generator().manual_seed(1), shift=shift, flip=flip)
    assert after.dtype == torch.uint8 and after.shape == before.shape
    drawn = [outcome_of(after[i].numpy(), before[i].numpy(), shift) for i in range(len(before))]
    assert {mirrored for _, _, mirrored in drawn} == ({True, False} if flip else {False})
    assert len({(down, right) for down, right, _ in drawn}) > 3, "pictures have offsets of their own"
    assert any(down != right for down, right, _ in drawn), "the axes have offsets of their own"


def test_all_shifts_are_drawn_equally_often_and_half_are_mirrored() -> None:
    before = pictures(1, 6, 7).repeat(4000, 1, 1, 1)
    after = shift_and_flip(before, torch.Generator().manual_seed(2), shift=1, flip=True).numpy()
    outcomes = all_outcomes(before[0].numpy(), 1)
    counts = {name: int((after == expected).all(axis=(1, 2, 3)).sum()) for name, expected in outcomes.items()}
    assert sum(counts.values()) == 4000
    expected = 4000 / 18
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), counts


def test_the_same_generator_state_gives_the_same_pictures() -> None:
    before = pictures(8, 8, 8)

    def augmented(seed: int) -> torch.Tensor:
        return shift_and_flip(before, torch.Generator().manual_seed(seed), shift=2, flip=True)

    torch.manual_seed(0)
    first = augmented(5)
    torch.manual_seed(99)  # the global state has no say
    assert torch.equal(first, augmented(5))
    assert not torch.equal(first, augmented(6))


def test_no_shift_and_no_flip_change_nothing_and_the_original_is_never_touched() -> None:
    before = pictures(5, 8, 8)
    copy = before.clone()
    assert torch.equal(shift_and_flip(before, torch.Generator(), shift=0, flip=False), before)
    shift_and_flip(before, torch.Generator(), shift=3, flip=True)
    assert torch.equal(before, copy)
