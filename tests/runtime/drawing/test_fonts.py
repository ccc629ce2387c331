"""Fonts of class names in any script, with one warning if none covers them."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from kdedge_runtime.drawing import fonts
from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.drawing.fonts import find_font, load_font
from kdedge_runtime.drawing.overlay import draw_overlay

BEYOND_ASCII = ["Größe", "кошка", "猫"]
CACHES = (fonts._typeface_beyond_ascii, fonts._is_usable, fonts._warn_once)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for cached in CACHES:
        cached.cache_clear()
    yield
    for cached in CACHES:
        cached.cache_clear()


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "kdedge_runtime.drawing.fonts"]


def drawn(name: str | None, text: str) -> bytes:
    return bytes(load_font(name, 24).getmask(text))


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("no-such-font-anywhere.ttf",))


@pytest.mark.parametrize("label", BEYOND_ASCII)
def test_non_ascii_name_uses_a_covering_font(label: str, caplog: pytest.LogCaptureFixture) -> None:
    chosen = find_font(label)
    if notes(caplog):
        pytest.skip(f"no font of this system has all of {label}")
    assert chosen is not None, "Pillow's default font lacks it"
    shapes = {drawn(chosen, character) for character in label}
    assert len(shapes) == len(set(label)), "every letter has its own shape"
    assert drawn(chosen, "\uffff") not in shapes, "no missing-glyph box"


def test_different_names_are_drawn_differently(caplog: pytest.LogCaptureFixture) -> None:
    ground = np.zeros((360, 640, 3), np.uint8)
    cat, fox = (draw_overlay(ground, None, (0, 0, 640, 360), Caption(label, "")) for label in ("кошка", "лисиц"))
    if notes(caplog):
        pytest.skip("no font of this system has Cyrillic")
    assert not np.array_equal(cat, fox)


@pytest.mark.parametrize("label", ["stop", "", "~ 100%", "cut…", "error ± 3%", "a·b"])
def test_default_font_is_preferred(label: str) -> None:
    assert find_font(label) is None


def test_ascii_needs_no_system_font(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a font was looked for")

    monkeypatch.setattr(fonts, "_typeface_beyond_ascii", refuse)
    draw_overlay(np.zeros((360, 640, 3), np.uint8), None, (0, 0, 640, 360), Caption("stop", "", None, ("12 ms old",)))


@pytest.mark.usefixtures("no_system_fonts")
def test_missing_font_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ground = np.zeros((360, 640, 3), np.uint8)
    for label in BEYOND_ASCII:
        overlay = draw_overlay(ground, None, (0, 0, 640, 360), Caption(label, "50%", 0.5))
        assert overlay.max() > 200, "an overlay with boxes is still drawn"
    (note,) = notes(caplog)
    assert "apt install fonts-noto-cjk" in note


@pytest.mark.usefixtures("no_system_fonts")
def test_unprintable_characters_need_no_font(caplog: pytest.LogCaptureFixture) -> None:
    assert find_font("zero\u200dwidth \udcff") is None
    assert not notes(caplog)


def test_font_without_caption_characters_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("thai.ttf", "both.ttf"))
    monkeypatch.setattr(fonts, "load_font", lambda *_: None)
    monkeypatch.setattr(fonts, "_has", lambda name, sign: name == "both.ttf" or (name == "thai.ttf" and sign > "~"))
    assert find_font("แมว") == "both.ttf", "thai.ttf lacks the characters of the caption"


def test_font_with_fewest_missing_characters_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has = {None: "", "one.ttf": "é", "two.ttf": "éß", "three.ttf": "猫"}
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("one.ttf", "missing.ttf", "two.ttf", "three.ttf"))
    monkeypatch.setattr(fonts, "_is_usable", has.__contains__)
    monkeypatch.setattr(fonts, "_has", lambda name, character: character in has[name])
    assert find_font("é") == "one.ttf"
    assert not notes(caplog)
    assert find_font("éß猫") == "two.ttf"
    assert len(notes(caplog)) == 1
