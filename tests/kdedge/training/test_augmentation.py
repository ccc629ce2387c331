"""Augmentation: equal to torchvision for the same parameters, with the expected distributions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from kdedge.training.augmentation import (
    Augmentation,
    AugmentationParams,
    augment,
    blend,
    draw_augmentation,
    draw_mixing,
    photometric,
)
from kdedge.training.augmentation.erasing import draw_erasures, erase
from kdedge.training.augmentation.geometry import draw_warps, move, move_and_warp
from kdedge_runtime.errors import UsageError

EVERYTHING = Augmentation(geometry=1.0, erase=0.5, mixup=0.2, cutmix=1.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=seeded(0))


def planes(picture: Tensor) -> Tensor:
    return picture.permute(2, 0, 1)


def all_outcomes(picture: np.ndarray, most: tuple[int, int]) -> dict[tuple[int, int, bool], np.ndarray]:
    """Return all possible results for an image, by px down and right and by flip."""
    height, width = picture.shape[:2]
    outcomes = {}
    for mirrored in (False, True):
        source = picture[:, ::-1] if mirrored else picture
        padded = np.pad(source, ((most[0], most[0]), (most[1], most[1]), (0, 0)), mode="reflect")
        for down in range(-most[0], most[0] + 1):
            for right in range(-most[1], most[1] + 1):
                row, column = down + most[0], right + most[1]
                outcomes[down, right, mirrored] = padded[row : row + height, column : column + width]
    return outcomes


@pytest.mark.parametrize(("height", "width", "shift"), [(8, 8, 0.25), (7, 10, 0.3), (5, 6, 0.5), (9, 6, 0.125)])
@pytest.mark.parametrize("flip", [True, False])
def test_shift_and_flip_move_pixels_as_drawn(height: int, width: int, shift: float, flip: bool) -> None:
    before = pictures(40, height, width)
    view = draw_augmentation(Augmentation(shift, flip, photometric=0), 40, height, width, seeded(1))
    after = augment(before, view)
    assert after.dtype == torch.uint8 and after.shape == before.shape
    most = round(shift * height), round(shift * width)
    for i in range(40):
        (down, right), mirrored = view.shift[i].tolist(), bool(view.mirrored[i])
        np.testing.assert_array_equal(after[i], all_outcomes(before[i].numpy(), most)[down, right, mirrored])
    assert set(view.mirrored.tolist()) == ({True, False} if flip else {False})
    assert any(down != right for down, right in view.shift.tolist()), "the axes have independent offsets"


def test_flip_and_shift_equal_torchvision() -> None:
    before = pictures(6, 16, 24)
    view = draw_augmentation(Augmentation(shift=0.25, photometric=0), 6, 16, 24, seeded(8))
    after = augment(before, view)
    for i, (down, right) in enumerate(view.shift.tolist()):
        expected = reference.hflip(planes(before[i])) if view.mirrored[i] else planes(before[i])
        expected = reference.pad(expected, [6, 4, 6, 4], padding_mode="reflect")
        expected = reference.crop(expected, 4 + down, 6 + right, 16, 24)
        assert torch.equal(planes(after[i]), expected)


def test_shifts_are_uniform_and_half_are_flipped() -> None:
    view = draw_augmentation(Augmentation(shift=1 / 6), 4000, 6, 7, seeded(2))
    rows = torch.cat((view.shift, view.mirrored[:, None]), dim=1)
    counts = rows.unique(dim=0, return_counts=True)[1]
    expected = 4000 / (3 * 3 * 2)
    assert len(counts) == 18 and all((counts - expected).abs() < 5 * expected**0.5), counts


def test_rows_are_independent_of_batches() -> None:
    before = pictures(30, 12, 10)
    view = draw_augmentation(EVERYTHING, 30, 12, 10, seeded(3))
    expected = augment(before, view)
    order = torch.randperm(30, generator=seeded(4))
    for index in (order[:7], order[7:]):
        assert torch.equal(augment(before[index], view.take(index)), expected[index])


def test_equal_seeds_give_equal_parameters() -> None:
    def drawn(seed: int) -> Tensor:
        return augment(pictures(8, 8, 8), draw_augmentation(EVERYTHING, 8, 8, 8, seeded(seed)))

    torch.manual_seed(0)
    first = drawn(5)
    torch.manual_seed(99)  # the global state has no effect
    assert torch.equal(first, drawn(5))
    assert not torch.equal(first, drawn(6))


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_input_is_not_modified(augmentation: Augmentation) -> None:
    before = pictures(20, 8, 8)
    copy, targets = before.clone(), torch.eye(20)
    augment(before, draw_augmentation(augmentation, 20, 8, 8, seeded(0)))
    blend(before, targets, draw_mixing(EVERYTHING, 19, 8, 8, seeded(0)))
    assert torch.equal(before, copy) and torch.equal(targets, torch.eye(20))


def test_disabled_augmentation_changes_nothing() -> None:
    before = pictures(5, 8, 9)
    view = draw_augmentation(Augmentation(shift=0, flip=False, photometric=0), 5, 8, 9, seeded(0))
    assert torch.equal(augment(before, view), before)


def torchvision_affine(picture: Tensor, warp: Tensor) -> Tensor:
    """Apply torchvision's affine to an image `[3, H, W]`, with parameters from the matrix of one operation."""
    (a, b), (c, d) = warp.double().tolist()
    if b and c:
        parameters: dict[str, Any] = {"angle": -math.degrees(math.atan2(c, a)), "scale": 1.0, "shear": [0.0, 0.0]}
    elif b or c:
        parameters = {"angle": 0.0, "scale": 1.0, "shear": [math.degrees(math.atan(b)), math.degrees(math.atan(c))]}
    else:
        assert a == d
        parameters = {"angle": 0.0, "scale": 1 / a, "shear": [0.0, 0.0]}
    bilinear = v2.InterpolationMode.BILINEAR
    return reference.affine(picture, translate=[0, 0], interpolation=bilinear, **parameters)


def test_geometry_equals_torchvision() -> None:
    height, width, most = 32, 40, (4, 5)
    before = pictures(40, height, width)
    view = draw_augmentation(Augmentation(shift=0.125, geometry=1.0, photometric=0), 40, height, width, seeded(7))
    after = augment(before, view)
    assert view.warps is not None

    def expected(i: int, picture: Tensor) -> Tensor:
        (down, right) = view.shift[i].tolist()
        picture = torchvision_affine(picture, view.warps[i])  # type: ignore[index]
        picture = reference.hflip(picture) if view.mirrored[i] else picture
        picture = reference.pad(picture, [most[1], most[0], most[1], most[0]], fill=0)  # black is outside
        return reference.crop(picture, most[0] + down, most[1] + right, height, width)

    for i in range(40):
        inside = expected(i, torch.full((3, height, width), 255, dtype=torch.uint8)) == 255
        difference = (planes(after[i]).int() - expected(i, planes(before[i])).int()).abs()[inside]
        assert inside.float().mean() > 0.4 and difference.max() <= 1, (i, view.warps[i], difference.max())


@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 11), (1, 5), (224, 224)])
def test_identity_warp_equals_the_gather(height: int, width: int) -> None:
    before = pictures(12, height, width)
    view = draw_augmentation(Augmentation(shift=0.5, photometric=0), 12, height, width, seeded(1))
    unit = torch.eye(2).expand(12, 2, 2)
    expected = move(before, view.shift, view.mirrored)
    assert torch.equal(move_and_warp(before, view.shift, view.mirrored, unit), expected)


def test_positions_are_exact_under_autocast() -> None:
    before, view = (
        pictures(4, 64, 64),
        draw_augmentation(Augmentation(geometry=1.0, photometric=0), 4, 64, 64, seeded(1)),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = augment(before, view)
    assert torch.equal(under_autocast, augment(before, view))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_each_image_has_one_of_four_operations(strength: float) -> None:
    count = 8000
    (a, b), (c, d) = draw_warps(strength, count, seeded(3)).permute(1, 2, 0)
    assert torch.equal(a, d)
    rotated, sheared_x, sheared_y = (b != 0) & (c != 0), (b != 0) & (c == 0), (b == 0) & (c != 0)
    zoomed = (b == 0) & (c == 0)
    amounts = (
        (torch.atan2(c, a)[rotated].rad2deg(), 30),
        (b[sheared_x], 0.3),
        (c[sheared_y], 0.3),
        (a[zoomed].log(), math.log(1.3)),
    )
    for values, largest in amounts:
        assert abs(len(values) - count / 4) < 5 * (count * 3 / 16) ** 0.5
        shares = torch.histc(values / (strength * largest), 10, -1, 1)
        assert shares.sum() == len(values), "none is out of range"
        assert all((shares - len(values) / 10).abs() < 5 * (len(values) / 10) ** 0.5), shares
    assert torch.allclose((a**2 + c**2)[rotated], torch.tensor(1.0))
    assert (a[sheared_x | sheared_y] == 1).all()


def test_erased_boxes_have_torchvisions_size_distribution() -> None:
    side, count = 256, 3000
    boxes, _ = draw_erasures(1.0, count, side, side, seeded(0))
    top, left, bottom, right = boxes.unbind(1)
    tall, wide = (bottom - top).float(), (right - left).float()
    assert (top >= 0).all() and (left >= 0).all() and (bottom <= side).all() and (right <= side).all()
    area, aspect = tall * wide / side**2, tall / wide
    slack = 0.02  # sides are rounded to px
    assert area.min() > 0.02 * (1 - slack) and area.max() < 0.33 * (1 + slack)
    assert aspect.min() > 0.3 * (1 - slack) and aspect.max() < 3.3 * (1 + slack)

    torch.manual_seed(0)
    transformation, image = v2.RandomErasing(p=1.0), torch.zeros(3, side, side)
    drawn = [transformation.make_params([image]) for _ in range(count)]
    theirs = torch.tensor([(one["h"], one["w"], one["i"], one["j"]) for one in drawn]).float()
    at = torch.linspace(0.1, 0.9, 9)
    for ours, expected in zip((tall, wide, top, left), theirs.unbind(1), strict=True):
        torch.testing.assert_close(ours.float().quantile(at), expected.quantile(at), atol=0.04 * side, rtol=0)


def test_boxes_that_do_not_fit_are_redrawn() -> None:
    boxes, _ = draw_erasures(1.0, 2000, 8, 128, seeded(0))
    top, left, bottom, right = boxes.unbind(1)
    assert (bottom - top < 8).all() and (bottom <= 8).all() and (right <= 128).all()
    erased = (bottom - top) * (right - left) > 0

    torch.manual_seed(0)
    transformation, image = v2.RandomErasing(p=1.0), torch.zeros(3, 8, 128)
    theirs = sum(transformation.make_params([image])["v"] is not None for _ in range(2000))
    assert abs(int(erased.sum()) - theirs) < 5 * (2 * 2000 * 0.83 * 0.17) ** 0.5 < 200, (
        "some find no box in ten attempts"
    )


def test_erasing_probability() -> None:
    boxes, _ = draw_erasures(0.25, 4000, 32, 32, seeded(0))
    erased = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    assert abs(int(erased.sum()) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert (boxes[~erased] == 0).all()


def test_noise_fills_exactly_the_box() -> None:
    before = pictures(3, 10, 12)
    boxes = torch.tensor([[2, 3, 7, 12], [0, 0, 10, 12], [0, 0, 0, 0]])
    after = erase(before, boxes, torch.tensor([1, 2, 3], dtype=torch.int16))
    outside = torch.ones(3, 10, 12, dtype=torch.bool)
    outside[0, 2:7, 3:12] = outside[1] = False
    assert torch.equal(after[outside], before[outside])
    assert (after != before)[~outside].float().mean() > 0.95


def test_noise_is_uniform_and_uncorrelated() -> None:
    count, side = 50, 64
    boxes = torch.tensor([[0, 0, side, side]]).expand(count, 4)
    keys = torch.arange(-count // 2, count // 2, dtype=torch.int16)  # keys as similar as possible
    noise = erase(torch.zeros(count, side, side, 3, dtype=torch.uint8), boxes, keys).double()
    frequencies = torch.histc(noise, 256, 0, 255)
    expected = noise.numel() / 256
    assert ((frequencies - expected) ** 2 / expected).sum() < 256 + 5 * (2 * 256) ** 0.5  # chi-squared

    def correlation(a: Tensor, b: Tensor) -> float:
        return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])

    for axis in (1, 2, 3):
        assert abs(correlation(noise, noise.roll(1, dims=axis))) < 0.02, axis
    between_images = torch.corrcoef(noise.flatten(1)).triu(diagonal=1)
    assert between_images.abs().max() < 0.1


class NoHostTraffic(TorchDispatchMode):
    """Dispatch mode that rejects synchronizations between host and device."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_nonzero", "unique")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if "aten.index." in str(function) else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if by_mask or any(name in str(function) for name in self.FORBIDDEN):
            raise AssertionError(f"{function} would synchronize")
        return function(*args, **(kwargs or {}))


def augmented(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augment one batch with all of `EVERYTHING`, from drawing to the mixed targets."""
    count, height, width = images.shape[:3]
    view = draw_augmentation(EVERYTHING, count, height, width, generator)
    index = torch.arange(count, device=images.device)
    targets = torch.zeros(count, 3, device=images.device)
    mixing = draw_mixing(EVERYTHING, count - 1, height, width, generator)
    return blend(augment(images, view.take(index)), targets, mixing)


def test_augmentation_does_not_synchronize(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(6, 8, 8)
    augmented(images, seeded(0))  # constants are copied to the device once
    monkeypatch.setattr(photometric, "_has_static_shapes", lambda _: True)  # as on a GPU
    with NoHostTraffic():
        augmented(images, seeded(0))
    waiting: list[Callable[[], Any]] = [
        lambda: images[0, 0, 0, 0].item(),
        lambda: images[images > 3],
        lambda: images + torch.tensor([1, 2, 3]),
    ]
    for wait in waiting:  # verifies that the check can fail
        with NoHostTraffic(), pytest.raises(AssertionError, match="would synchronize"):
            wait()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_can_be_captured_in_a_cuda_graph() -> None:
    images, targets = pictures(6, 8, 8).cuda(), torch.eye(6, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented(images, generator)
        view, mixing = draw_augmentation(EVERYTHING, 6, 8, 8, generator), draw_mixing(EVERYTHING, 5, 8, 8, generator)
        expected = blend(augment(images, view), targets, mixing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = blend(augment(images, view), targets, mixing)
    graph.replay()
    assert all(torch.equal(*pair) for pair in zip(captured, expected, strict=True))


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(geometry=0.5), EVERYTHING])
def test_compiled_result_is_equal(augmentation: Augmentation) -> None:
    images, index = pictures(20, 10, 12), torch.arange(3, 11)
    view = draw_augmentation(augmentation, 20, 10, 12, seeded(0))

    def batch(images: Tensor, view: AugmentationParams, index: Tensor) -> Tensor:
        return augment(images[index], view.take(index))

    compiled = torch.compile(batch, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(images, view, index), batch(images, view, index))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("shift", 0.6), ("shift", -0.1), ("geometry", 1.5), ("erase", 2), ("mixup", -1), ("cutmix", math.inf)]
    + [("photometric", 1.5)]
    + [(name, math.nan) for name in ("shift", "geometry", "photometric", "erase", "mixup", "cutmix")],
)
def test_settings_out_of_range_suggest_a_value(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{setting} is .*Expected .* from 0 to .*Write {setting} = ") as caught:
        Augmentation(**{setting: value})
    usual = float(str(caught.value).split("= ")[1].split(",")[0])
    Augmentation(**{setting: usual})  # the suggested value is valid
