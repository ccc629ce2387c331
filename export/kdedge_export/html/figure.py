"""One picture of a gallery, with its words below."""

from kdedge_export.html.text import escape

__all__ = ["figure"]


def figure(title: str, uri: str | None, alternative: str, caption: str) -> str:
    """A picture with its caption; a frame that says "no map" where there is none.

    Args:
        title: HTML above it, where the page has no head over the column.
        uri: of the picture, from `kdedge_export.html.thumbnails`.
        alternative: plain text in its place.
        caption: HTML below it.
    """
    picture = (
        '<span class="nomap">no map</span>'
        if uri is None
        else f'<img src="{uri}" alt="{escape(alternative)}" decoding="async">'
    )
    return f'<figure><span class="title">{title}</span>{picture}<figcaption>{caption}</figcaption></figure>'
