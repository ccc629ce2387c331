"""The decision about one picture, from coarse to fine, as one SVG that holds its pictures."""

import base64
import io

import numpy as np
from PIL import Image

from kdedge.workflow.inspect_model import Seen
from kdedge_export.html.text import escape
from kdedge_export.html.thumbnails import overlay_uri, picture_uri
from kdedge_export.inspect.decision import Channel, Stage
from kdedge_runtime.arrays import Floats

__all__ = ["decision_svg", "evidence_uri"]

_COLUMN, _GAP, _TOP, _MINI, _MINIS = 212, 30, 30, 64, 3
_BRIGHT = 0.99
_FOR, _AGAINST = np.array([176, 24, 127]), np.array([23, 103, 179])
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink,#17171c)}"
    ".t{font-size:14px;font-weight:640}.n{font-weight:400}.s{fill:var(--soft,#666672)}.n{font-size:11px;fill:var(--soft,#666672)}"
    ".m{font-size:10px;fill:var(--soft,#666672)}"
    ".a{fill:none;stroke:var(--soft,#666672);stroke-width:1.5}"
)


def decision_svg(seen: Seen, *, standalone: bool = False) -> str:
    """The picture, then a column a stage: its map on the picture, and the channels that carried most of the evidence.

    Args:
        seen: a picture and the decision about it.
        standalone: add a ground of its own, for a file that is opened by itself.
    """
    stages = seen.decision.stages
    width = (len(stages) + 1) * (_COLUMN + _GAP) - _GAP
    words = 54 if all(stage.evidence.beside is None for stage in stages) else 72
    height = _TOP + _COLUMN + words + 8 + 2 * (_MINI + 26)
    columns = [_picture(seen, 0)]
    columns += [_stage(stage, seen.pixels, (at + 1) * (_COLUMN + _GAP), words) for at, stage in enumerate(stages)]
    arrows = "".join(_arrow((at + 1) * (_COLUMN + _GAP)) for at in range(1, len(stages)))
    ground = f'<rect x="-24" y="-24" width="{width + 48}" height="{height + 48}" fill="#fcfcfb"/>' if standalone else ""
    box = f"-24 -24 {width + 48} {height + 48}" if standalone else f"0 0 {width} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="decision" viewBox="{box}" role="img" '
        f'aria-label="The decision about {escape(seen.name)} at {len(stages)} stages"><style>{_STYLE}</style>{ground}'
        f"{''.join(columns)}{arrows}</svg>\n"
    )


def evidence_uri(evidence: Floats) -> str:
    """A signed map `[h, w]` as a small PNG: magenta speaks for the class, blue against, no evidence is clear."""
    strongest = float(np.abs(evidence).max()) or 1.0
    strength = np.abs(evidence) / strongest
    colour = np.where((evidence >= 0)[..., None], _FOR, _AGAINST)
    cells = np.concatenate([colour, np.round(255 * strength)[..., None]], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells, "RGBA").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _picture(seen: Seen, x: int) -> str:
    decision = seen.decision
    lines = [f"{escape(_fit(seen.labels[index], 26))}  {100 * share:.1f} %" for index, share in decision.ranking]
    texts = "".join(
        f'<text x="{x}" y="{_TOP + _COLUMN + 44 + 19 * at}" class="{"s" if at else "b"}">{line}</text>'
        for at, line in enumerate(lines)
    )
    explained = _fit(seen.labels[decision.explained_class], 22)
    return (
        f'<text x="{x}" y="14" class="t">the picture</text>{_image(picture_uri(seen.pixels), x, _TOP, _COLUMN)}'
        f'<text x="{x}" y="{_TOP + _COLUMN + 20}" class="s">explained: {escape(explained)}</text>{texts}'
    )


def _stage(stage: Stage, pixels: np.ndarray, x: int, words: int) -> str:
    height, width = stage.cells
    evidence = stage.evidence
    y = _TOP + _COLUMN
    rows, columns = evidence.saliency_map.shape
    how = "" if stage.why_blanked is None else f" · {columns} × {rows} blanks"
    reader = "" if stage.attention is None else f" · attention {stage.attention[0]} of {stage.attention[1]}"
    carried = f"{evidence.channels_for(0.5)} of {len(evidence.shares)} channels carry half of it"
    lines = [f"<title>{escape(stage.tensor)}</title>{escape(_fit(stage.tensor, 34))}"]
    if evidence.beside is not None:
        lines.insert(0, f"{100 * evidence.beside:.0f} % is in tokens beside the patches")
    notes = "".join(f'<text x="{x}" y="{y + 38 + 18 * at}" class="n">{line}</text>' for at, line in enumerate(lines))
    minis = "".join(
        _channel(item, x + (_MINI + 10) * (at % _MINIS), y + words + (_MINI + 26) * (at // _MINIS))
        for at, item in enumerate(evidence.channels[: 2 * _MINIS])
    )
    return (
        f'<text x="{x}" y="14" class="t">{width} × {height} cells<tspan class="n">{reader}{how}</tspan></text>'
        f"{_image(overlay_uri(pixels, _readable(evidence.saliency_map)), x, _TOP, _COLUMN)}"
        f'<text x="{x}" y="{y + 20}">{carried}</text>'
        f"{notes}{minis}"
    )


def _readable(saliency_map: Floats) -> Floats:
    """Fine maps have single cells that outshine all others; full heat begins at the strongest hundredth."""
    return np.minimum(saliency_map, np.quantile(saliency_map, _BRIGHT)).astype(np.float32)


def _channel(channel: Channel, x: int, y: int) -> str:
    sign = "+" if channel.evidence >= 0 else "−"
    words = (
        f"channel {channel.index}: {channel.evidence:+.3g} of the logit, {100 * channel.share:.1f} % of the evidence"
    )
    return (
        f"<g><title>{words}</title>"
        f'<rect x="{x}" y="{y}" width="{_MINI}" height="{_MINI}" rx="4" fill="var(--faint,#f1f1f3)"/>'
        f"{_image(evidence_uri(channel.saliency_map), x, y, _MINI, pixelated=True)}"
        f'<text x="{x}" y="{y + _MINI + 14}" class="m">{channel.index} {sign}{100 * channel.share:.1f}%</text></g>'
    )


def _arrow(x: int) -> str:
    left, middle = x - _GAP + 8, _TOP + _COLUMN // 2
    return f'<path class="a" d="M{left} {middle}h{_GAP - 16}m-5 -4l5 4l-5 4"/>'


def _image(uri: str, x: int, y: int, side: int, *, pixelated: bool = False) -> str:
    style = ' style="image-rendering:pixelated"' if pixelated else ""
    return f'<image href="{uri}" x="{x}" y="{y}" width="{side}" height="{side}"{style}/>'


def _fit(text: str, most: int) -> str:
    """Text that fits; the end of a long one says most."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
