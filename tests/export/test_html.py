"""Formatting of numbers, text and images in pages."""

import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from kdedge_export.html.page import render
from kdedge_export.html.palette import PALETTE
from kdedge_export.html.text import correlation, large, plain_number, signed_number
from kdedge_export.html.thumbnails import MAX_BYTES, at_display_size, jpeg_uri, overlaid


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (76, "76"), (1_234, "1.23 k"), (999_600, "1 M"), (11_200_000, "11.2 M")],
)
def test_large_counts_have_three_digits(count: float, shown: str) -> None:
    assert large(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8714, "0.871"), (0.99891, "0.999"), (0.99972, "0.9997"), (0.99999, "0.9999"), (1.0, "1.000"), (-0.5, "−0.500")],
)
def test_correlation_below_1_is_not_shown_as_1(value: float, shown: str) -> None:
    assert correlation(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (21_562.4, "21,562"),
        (-999_999.0, "−999,999"),
        (9_999.7, "10,000"),
        (1_234.4, "1,234"),
        (0.12345, "0.1235"),
        (2.5e6, "2,500,000"),
        (2.5e9, "2.5e+09"),
        (float("nan"), "–"),
    ],
)
def test_numbers_below_a_million_have_no_exponent(value: float, shown: str) -> None:
    assert plain_number(value) == shown
    assert plain_number(value, "kW") == (f"{shown} kW" if shown != "–" else shown)


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.4, "+1,234"), (-0.5, "−0.5"), (0.0, "0"), (-0.0, "0"), (float("inf"), "–")]
)
def test_differences_have_a_sign(value: float, shown: str) -> None:
    assert signed_number(value) == shown


def test_page_allows_no_script_and_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pages_of_a_test"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "templates" / "page.html").write_text(
        "{% extends 'base.html' %}{% block title %}{{ name }}{% endblock %}{% block body %}{{ name }}{% endblock %}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    page = render(package.name, "page.html", name="<script>'&\"")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy.split("; ") == ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    assert "<script" not in page and page.count("&lt;script&gt;&#39;&amp;&#34;") == 2
    for name, (light, dark) in PALETTE.items():
        assert page.count(f"--{name}: {light};") >= 1 and page.count(f"--{name}: {dark};") == 1
    with pytest.raises(UndefinedError):
        render(package.name, "page.html")


class TestThumbnails:
    def test_encoded_noise_stays_small(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
        assert len(jpeg_uri(at_display_size(noise))) < MAX_BYTES * 4 / 3 + 100

    def test_overlay_shows_positive_values_and_ignores_non_finite_maps(self) -> None:
        gray = np.full((32, 32, 3), 128, dtype=np.uint8)
        hot = np.zeros((8, 8), dtype=np.float32)
        hot[2, 2] = 1
        assert jpeg_uri(overlaid(gray, hot)) != jpeg_uri(at_display_size(gray))
        assert (
            jpeg_uri(overlaid(gray, -hot))
            == jpeg_uri(overlaid(gray, np.full_like(hot, np.nan)))
            == jpeg_uri(at_display_size(gray))
        )
