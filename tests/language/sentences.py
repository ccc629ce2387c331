"""Find the long sentences of Markdown prose."""

import re
from collections.abc import Iterator

__all__ = ["MAX_WORDS", "long_sentences"]

MAX_WORDS = 20
_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) |#|\|)")
_LIST_MARK = re.compile(r"\s*(?:[-*]|\d+\.) ")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]*`")
_END = re.compile(r"(?<=[.?!])[\"')*_]*\s+")
_WORD = re.compile(r"[A-Za-z0-9][\w'’.,/%×+–-]*")


def long_sentences(page: str) -> Iterator[tuple[int, str]]:
    """Yield each sentence with more than `MAX_WORDS` words, with their number.

    Headings, tables, code blocks, HTML and alternative texts are excluded. Inline code counts as one word.
    """
    for block in _BLOCK.split(_FENCE.sub("\n\n", _COMMENT.sub("", page))):
        text = _LIST_MARK.sub("", block.strip("\n"), count=1) if _LIST_MARK.match(block.strip("\n")) else block
        if text.lstrip().startswith(("#", "|", "<")):
            continue
        plain = " ".join(_CODE.sub("CODE", _LINK.sub(r"\1", _IMAGE.sub("", text))).split())
        for sentence in _END.split(plain):
            if (count := len(_WORD.findall(sentence))) > MAX_WORDS:
                yield count, sentence
