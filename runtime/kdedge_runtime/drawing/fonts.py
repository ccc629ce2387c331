"""Font selection by character coverage: Pillow's default font for ASCII, system fonts for other characters."""

import logging
from functools import cache, lru_cache

from PIL import ImageFont

__all__ = ["Font", "load_font", "find_font"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_log = logging.getLogger(__name__)
_SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", "FreeSerif.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJK-VF.ttc", "DroidSansFallbackFull.ttf", "wqy-zenhei.ttc"),
    *("segoeui.ttf", "msyh.ttc", "malgun.ttf", "msgothic.ttc", "Nirmala.ttf"),  # Windows
    *("Arial Unicode.ttf", "Arial.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc"),  # macOS
)
"""Font file names, which Pillow searches in the system's font folders."""
_PROBE_PX = 20
_BESIDE_EVERY_NAME = "a0%:"
"""Characters needed in every caption. Some fonts for a single script lack them."""
_NO_CHARACTER = "\uffff"
"""Unicode noncharacter, for which every font draws its missing-glyph symbol."""


def find_font(text: str) -> str | None:
    """Return the first font that covers a text, or else the one with the fewest missing characters (warns once).

    Returns:
        A file name for `load_font`, or None for Pillow's default font.
    """
    return None if text.isascii() else _typeface_beyond_ascii(text)


@lru_cache(maxsize=64)
def load_font(typeface: str | None, size: int) -> Font:
    """Load a font at a size in pixels.

    Raises:
        OSError: the font is not installed.
        ImportError: Pillow was built without FreeType.
    """
    return ImageFont.load_default(size) if typeface is None else ImageFont.truetype(typeface, size)


@lru_cache(maxsize=1024)
def _typeface_beyond_ascii(text: str) -> str | None:
    # Unprintable characters, such as joiners and surrogates, have no glyph in any font.
    wanted = {character for character in text if not character.isascii() and character.isprintable()}
    best, fewest = None, len(wanted) + 1
    for typeface in (None, *_SYSTEM_FONTS):
        if typeface is not None and not _is_usable(typeface):
            continue
        lacking = sum(not _has(typeface, character) for character in wanted)
        if lacking < fewest:
            best, fewest = typeface, lacking
        if not lacking:
            return best
    _warn_once()
    return best


@cache
def _is_usable(typeface: str) -> bool:
    try:
        load_font(typeface, _PROBE_PX)
    except (OSError, ImportError):
        return False
    return all(_has(typeface, character) for character in _BESIDE_EVERY_NAME)


@lru_cache(maxsize=8192)
def _has(typeface: str | None, character: str) -> bool:
    return _drawn(typeface, character) != _sign_of_lack(typeface)


@cache
def _sign_of_lack(typeface: str | None) -> tuple[tuple[int, int], bytes]:
    return _drawn(typeface, _NO_CHARACTER)


def _drawn(typeface: str | None, character: str) -> tuple[tuple[int, int], bytes]:
    mask = load_font(typeface, _PROBE_PX).getmask(character)
    return mask.size, bytes(mask)


@cache
def _warn_once() -> None:
    _log.warning(
        "Some characters of the class names are shown as boxes, because no installed font contains them. Install "
        "one, such as `apt install fonts-noto-cjk` for Chinese, Japanese and Korean, or `fonts-freefont-ttf` for "
        "other scripts."
    )
