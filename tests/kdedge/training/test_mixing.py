"""mixup and CutMix: pasted pixels match target weights, and weights are Beta-distributed."""

import pytest
import torch
from torch import Tensor

from kdedge.training.augmentation import Augmentation, Mixing, blend, draw_mixing

CUTMIX = Augmentation(cutmix=1.0)
MIXUP = Augmentation(mixup=0.2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=seeded(0))


def distributions(count: int, classes: int) -> Tensor:
    return torch.randn(count, classes, generator=seeded(1)).softmax(dim=1)


def ring(rows: Tensor) -> Tensor:
    """Return the rows of a whole batch as `blend` expects them, with the last one first."""
    return torch.cat((rows[-1:], rows))


def mix(
    images: Tensor, targets: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw parameters and mix a whole batch."""
    return blend(ring(images), ring(targets), draw_mixing(augmentation, *images.shape[:3], generator))


def test_cutmix_pastes_a_box_with_exact_target_weight() -> None:
    count, height, width = 60, 9, 14
    names = torch.arange(count, dtype=torch.uint8)  # every image has one color, its index
    before = names[:, None, None, None].expand(count, height, width, 3).contiguous()
    after, targets = mix(before, torch.eye(count), CUTMIX, seeded(2))
    shares = []
    for i in range(count):
        pasted = (after[i] == (i - 1) % count).all(dim=-1)
        assert torch.equal(pasted, (after[i] != i).any(dim=-1)), "a pixel is from the image or its neighbor"
        rows, columns = pasted.any(dim=1), pasted.any(dim=0)
        assert torch.equal(pasted, rows[:, None] & columns), "the pasted area is a box"
        assert int(rows.diff().sum()) <= 2 and int(columns.diff().sum()) <= 2, "contiguous"
        share = pasted.sum() / (height * width)
        assert targets[i, (i - 1) % count] == share and targets[i, i] == 1 - share
        shares.append(float(share))
    assert min(shares) < 0.1 and max(shares) > 0.6


def test_cutmix_copies_pixels_in_place() -> None:
    before = pictures(20, 8, 8)
    mixing = draw_mixing(CUTMIX, 20, 8, 8, seeded(3))
    after, _ = blend(ring(before), ring(distributions(20, 5)), mixing)
    for i, (top, left, bottom, right) in enumerate(mixing.boxes.tolist()):
        expected = before[i].clone()
        expected[top:bottom, left:right] = before[i - 1, top:bottom, left:right]
        assert torch.equal(after[i], expected)


def test_mixup_is_the_weighted_mean() -> None:
    before, targets = pictures(30, 6, 7), distributions(30, 4)
    mixing = draw_mixing(MIXUP, 30, 6, 7, seeded(4))
    after, mixed = blend(ring(before), ring(targets), mixing)
    for i in range(30):
        share = float(mixing.weight[i])
        expected = (1 - share) * before[i].double() + share * before[i - 1].double()
        assert (after[i].double() - expected).abs().max() <= 0.5 + 1e-4
        torch.testing.assert_close(mixed[i], (1 - share) * targets[i] + share * targets[i - 1])


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX, Augmentation(mixup=0.8, cutmix=1.0)])
def test_targets_stay_distributions(augmentation: Augmentation) -> None:
    _, targets = mix(pictures(50, 8, 8), distributions(50, 10), augmentation, seeded(0))
    assert targets.dtype == torch.float32 and (targets >= 0).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(50))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1, 8.0])
def test_mixup_weights_have_beta_mean_and_variance(alpha: float) -> None:
    count = 20_000
    weight = draw_mixing(Augmentation(mixup=alpha), count, 4, 4, seeded(5)).weight.double()
    assert ((weight >= 0) & (weight <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weight.mean() - 0.5) < 5 * (variance / count) ** 0.5
    assert abs(weight.var() - variance) < 5 * 0.25 / count**0.5 * variance**0.5


def test_cutmix_boxes_have_uniform_areas_and_centers_for_alpha_one() -> None:
    count, height, width = 20_000, 200, 300
    mixing = draw_mixing(CUTMIX, count, height, width, seeded(6))
    assert (mixing.weight == 1).all()
    top, left, bottom, right = mixing.boxes.double().unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= height).all() and (right <= width).all()
    whole = (top > 0) & (left > 0) & (bottom < height) & (right < width)
    tall, wide = (bottom - top) / height, (right - left) / width
    assert (tall - wide)[whole].abs().max() < 1 / 100, "aspect ratio of the image"
    # A box of side s fits with probability (1 - s)² for s = sqrt(u), u uniform: 1/6 overall.
    assert abs(whole.double().mean() - 1 / 6) < 0.02
    # The area kept inside has the mean of integral (s - s² / 4)² 2s ds = 1/2 - 1/5 + 1/48.
    assert abs((tall * wide).mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 0.01


def test_cutmix_boxes_are_clipped_to_the_image() -> None:
    """Small and large boxes with random centers, so that every edge clips some."""
    boxes = draw_mixing(Augmentation(cutmix=0.1), 5000, 8, 12, seeded(10)).boxes
    assert boxes.dtype == torch.int64
    assert boxes.amin(dim=0).tolist() == [0, 0, 0, 0] and boxes.amax(dim=0).tolist() == [8, 12, 8, 12]


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX, Augmentation(mixup=1.0, cutmix=1.0)])
def test_mixing_parameters_have_their_dtypes(augmentation: Augmentation) -> None:
    mixing = draw_mixing(augmentation, 50, 8, 12, seeded(11))
    assert (mixing.boxes.dtype, mixing.weight.dtype) == (torch.int64, torch.float32)
    images, _ = blend(ring(pictures(50, 8, 12)), ring(distributions(50, 3)), mixing)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX, Augmentation(mixup=1.0, cutmix=1.0)])
def test_mixing_parameters_are_on_the_generators_device(augmentation: Augmentation) -> None:
    """The default device differs, and drawing on it with this generator fails."""
    with torch.device("meta"):
        mixing = draw_mixing(augmentation, 5, 8, 12, seeded(12))
    assert mixing.boxes.device.type == mixing.weight.device.type == "cpu"


def test_each_image_has_either_mixup_or_cutmix() -> None:
    mixing = draw_mixing(Augmentation(mixup=1.0, cutmix=1.0), 2000, 16, 16, seeded(7))
    is_cut = mixing.weight == 1
    assert abs(int(is_cut.sum()) - 1000) < 5 * 500**0.5
    assert (mixing.boxes[~is_cut] == torch.tensor([0, 0, 16, 16])).all()
    assert (mixing.boxes[is_cut] != torch.tensor([0, 0, 16, 16])).any(dim=1).float().mean() > 0.9


def test_equal_seeds_give_equal_mixing() -> None:
    def mixed(seed: int) -> Tensor:
        return mix(pictures(8, 8, 8), distributions(8, 3), Augmentation(mixup=0.5, cutmix=0.5), seeded(seed))[0]

    torch.manual_seed(0)
    first = mixed(5)
    torch.manual_seed(99)  # the global state has no effect
    assert torch.equal(first, mixed(5))
    assert not torch.equal(first, mixed(6))


def test_single_image_is_unchanged() -> None:
    assert CUTMIX.mixes and MIXUP.mixes and not Augmentation().mixes
    images, targets = pictures(1, 8, 8), distributions(1, 4)
    after, unmixed = mix(images, targets, Augmentation(mixup=1.0, cutmix=1.0), seeded(0))
    assert torch.equal(after, images) and torch.equal(unmixed, targets)


def test_parts_with_their_predecessor_are_mixed_as_the_whole() -> None:
    images, targets = ring(pictures(12, 8, 9)), ring(distributions(12, 4))
    mixing = draw_mixing(Augmentation(mixup=1.0, cutmix=1.0), 12, 8, 9, seeded(9))
    whole = blend(images, targets, mixing)
    for start, end in ((0, 5), (5, 6), (6, 12)):
        part = blend(images[start : end + 1], targets[start : end + 1], Mixing(*(rows[start:end] for rows in mixing)))
        assert torch.equal(part[0], whole[0][start:end]) and torch.equal(part[1], whole[1][start:end])


def test_compiled_result_is_equal() -> None:
    images, targets = ring(pictures(10, 8, 9)), ring(distributions(10, 4))
    mixing = draw_mixing(Augmentation(mixup=1.0, cutmix=1.0), 10, 8, 9, seeded(8))

    def batch(images: Tensor, targets: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
        return blend(images, targets, mixing)

    expected = batch(images, targets, mixing)
    result = torch.compile(batch, backend="aot_eager", fullgraph=True)(images, targets, mixing)
    assert torch.equal(result[0], expected[0])
    torch.testing.assert_close(result[1], expected[1])
