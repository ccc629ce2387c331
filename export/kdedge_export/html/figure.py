"""Gallery image with its caption."""

from kdedge_export.html.text import escape

__all__ = ["figure"]


def figure(title: str, uri: str | None, alternative: str, caption: str) -> str:
    """Render an image with its caption, or a frame labeled "no map" without one.

    Args:
        title: HTML above the image, for pages without column headers.
        uri: data URI from `kdedge_export.html.thumbnails`; None without a map.
        alternative: alternative text.
        caption: HTML below the image.
    """
    image = (
        '<span class="nomap">no map</span>'
        if uri is None
        else f'<img src="{uri}" alt="{escape(alternative)}" decoding="async">'
    )
    return f'<figure><span class="title">{title}</span>{image}<figcaption>{caption}</figcaption></figure>'
