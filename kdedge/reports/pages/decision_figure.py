"""Layer attribution of a prediction, from coarse to fine, as one figure."""

import numpy as np

from kdedge.pipelines.model_inspection import ImageInspection
from kdedge.reports.pages.vector_drawing import Drawing, DrawnArrow, DrawnImage, DrawnMap, DrawnText, Item
from kdedge_export.html.thumbnails import overlaid
from kdedge_export.inspection.layer_attribution import AttributionStage, Channel
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["decision_drawing"]

_COLUMN, _GAP, _TOP, _MINI, _MINIS = 212, 30, 30, 64, 3
_BRIGHT = 0.99
_FOR, _AGAINST = np.array([176, 24, 127]), np.array([23, 103, 179])


def decision_drawing(seen: ImageInspection) -> Drawing:
    """Draw the image, then one column per stage: its map as an overlay, and its strongest channels."""
    stages = seen.decision.stages
    words = 54 if all(stage.evidence.beside is None for stage in stages) else 72
    items = _image(seen)
    for at, stage in enumerate(stages, start=1):
        x = at * (_COLUMN + _GAP)
        items += _stage(stage, seen.pixels, x, words)
        if at > 1:
            items.append(DrawnArrow(x - _GAP + 8, _TOP + _COLUMN // 2, _GAP - 16))
    return Drawing(
        width=(len(stages) + 1) * (_COLUMN + _GAP) - _GAP,
        height=_TOP + _COLUMN + words + 8 + 2 * (_MINI + 26),
        label=f"Attribution of the prediction for {seen.name} at {len(stages)} stages",
        items=tuple(items),
    )


def _image(seen: ImageInspection) -> list[Item]:
    decision, y = seen.decision, _TOP + _COLUMN
    explained = _fit(seen.labels[decision.explained_class], 22)
    lines = [f"{_fit(seen.labels[index], 26)}  {100 * share:.1f} %" for index, share in decision.ranking]
    return [
        DrawnText(0, 14, "image", "title"),
        DrawnImage(0, _TOP, _COLUMN, seen.pixels),
        DrawnText(0, y + 20, f"explained: {explained}", "soft"),
        *(DrawnText(0, y + 44 + 19 * at, line, "soft" if at else "plain") for at, line in enumerate(lines)),
    ]


def _stage(stage: AttributionStage, pixels: Pixels, x: int, words: int) -> list[Item]:
    (height, width), evidence, y = stage.positions, stage.evidence, _TOP + _COLUMN
    rows, columns = evidence.saliency_map.shape
    how = "" if (rows, columns) == stage.positions else f" · evaluated at {columns} × {rows}"
    how = how if stage.why_blanked is None else f" · {columns} × {rows} ablations"
    reader = "" if stage.attention is None else f" · attention {stage.attention[0]} of {stage.attention[1]}"
    notes = [DrawnText(x, y + 38, _fit(stage.tensor, 34), "note", hint=stage.tensor)]
    if evidence.beside is not None:
        share = f"{100 * evidence.beside:.0f} % in non-patch tokens"
        notes = [DrawnText(x, y + 38, share, "note"), DrawnText(x, y + 56, notes[0].text, "note", hint=stage.tensor)]
    items: list[Item] = [
        DrawnText(x, 14, f"{width} × {height} map", "title", after=reader + how),
        DrawnImage(x, _TOP, _COLUMN, overlaid(pixels, _readable(evidence.saliency_map), evidence.shift)),
        DrawnText(x, y + 20, f"{evidence.channels_for(0.5)} of {len(evidence.shares)} channels carry half of it"),
        *notes,
    ]
    for at, channel in enumerate(evidence.channels[: 2 * _MINIS]):
        items += _channel(channel, x + (_MINI + 10) * (at % _MINIS), y + words + (_MINI + 26) * (at // _MINIS))
    return items


def _readable(saliency_map: Floats) -> Floats:
    """Clip a map at its 99th percentile, because single positions dominate high-resolution maps."""
    return np.minimum(saliency_map, np.quantile(saliency_map, _BRIGHT)).astype(np.float32)


def _channel(channel: Channel, x: int, y: int) -> list[Item]:
    sign = "+" if channel.evidence >= 0 else "−"
    hint = (
        f"channel {channel.index}: {channel.evidence:+.3g} of the logit, {100 * channel.share:.1f} % of the attribution"
    )
    return [
        DrawnMap(x, y, _MINI, _signed(channel.saliency_map), hint),
        DrawnText(x, y + _MINI + 14, f"{channel.index} {sign}{100 * channel.share:.1f}%", "small", hint=hint),
    ]


def _signed(evidence: Floats) -> Pixels:
    """Render a map `[h, w]` as RGBA: magenta for positive, blue for negative, transparent for zero attribution."""
    strongest = float(np.abs(evidence).max()) or 1.0
    strength = np.abs(evidence) / strongest
    color = np.where((evidence >= 0)[..., None], _FOR, _AGAINST)
    return np.concatenate([color, np.round(255 * strength)[..., None]], axis=2).astype(np.uint8)


def _fit(text: str, most: int) -> str:
    """Shorten text from the left, since the end of a long name is the most specific."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
