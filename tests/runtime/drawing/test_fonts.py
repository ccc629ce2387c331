"""Class names in any script: written in a font that has their characters, told once where none has."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from kdedge_runtime.drawing import fonts
from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.drawing.fonts import font, typeface_of
from kdedge_runtime.drawing.overlay import draw_overlay

BEYOND_ASCII = ["Größe", "кошка", "猫"]
CACHES = (fonts._typeface_beyond_ascii, fonts._is_usable, fonts._tell_once)


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
    return bytes(font(name, 24).getmask(text))


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("no-such-font-anywhere.ttf",))


@pytest.mark.parametrize("label", BEYOND_ASCII)
def test_a_name_beyond_ascii_is_written_in_a_font_that_has_it(label: str, caplog: pytest.LogCaptureFixture) -> None:
    chosen = typeface_of(label)
    if notes(caplog):
        pytest.skip(f"no font of this system has all of {label}")
    assert chosen is not None, "Pillow's own font has boxes for it"
    shapes = {drawn(chosen, character) for character in label}
    assert len(shapes) == len(set(label)), "every letter has a shape of its own"
    assert drawn(chosen, "\uffff") not in shapes, "none is a box"


def test_names_of_equal_length_look_different_in_an_overlay(caplog: pytest.LogCaptureFixture) -> None:
    ground = np.zeros((360, 640, 3), np.uint8)
    cat, fox = (draw_overlay(ground, None, (0, 0, 640, 360), Caption(label, 0.5)) for label in ("кошка", "лисиц"))
    if notes(caplog):
        pytest.skip("no font of this system has Cyrillic")
    assert not np.array_equal(cat, fox)


@pytest.mark.parametrize("label", ["stop", "", "~ 100 %", "cut…", "error ± 3 %", "a·b"])
def test_what_pillows_own_font_has_is_written_in_it(label: str) -> None:
    assert typeface_of(label) is None


def test_ascii_asks_for_no_font_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a font was looked for")

    monkeypatch.setattr(fonts, "_typeface_beyond_ascii", refuse)
    draw_overlay(np.zeros((360, 640, 3), np.uint8), None, (0, 0, 640, 360), Caption("stop", 0.5, ("12 ms old",)))


@pytest.mark.usefixtures("no_system_fonts")
def test_where_no_font_has_it_one_note_says_what_to_install(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ground = np.zeros((360, 640, 3), np.uint8)
    for label in BEYOND_ASCII:
        overlay = draw_overlay(ground, None, (0, 0, 640, 360), Caption(label, 0.5))
        assert overlay.max() > 200, "boxes are better than no picture"
    (note,) = notes(caplog)
    assert "apt install fonts-noto-cjk" in note


@pytest.mark.usefixtures("no_system_fonts")
def test_signs_without_a_shape_are_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    assert typeface_of("zero\u200dwidth \udcff") is None
    assert not notes(caplog)


def test_a_font_without_the_letters_beside_a_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("thai.ttf", "both.ttf"))
    monkeypatch.setattr(fonts, "font", lambda *_: None)
    monkeypatch.setattr(fonts, "_has", lambda name, sign: name == "both.ttf" or (name == "thai.ttf" and sign > "~"))
    assert typeface_of("แมว") == "both.ttf", "thai.ttf would write boxes for heat: and 50 %"


def test_the_font_that_lacks_fewest_is_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    has = {None: "", "one.ttf": "é", "two.ttf": "éß", "three.ttf": "猫"}
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("one.ttf", "missing.ttf", "two.ttf", "three.ttf"))
    monkeypatch.setattr(fonts, "_is_usable", has.__contains__)
    monkeypatch.setattr(fonts, "_has", lambda name, character: character in has[name])
    assert typeface_of("é") == "one.ttf"
    assert not notes(caplog)
    assert typeface_of("éß猫") == "two.ttf"
    assert len(notes(caplog)) == 1
