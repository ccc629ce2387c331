"""Check of HTML pages."""

from html.parser import HTMLParser
from pathlib import Path

_VOID = frozenset({"meta", "br", "img", "hr", "link", "input"})


class Page(HTMLParser):
    """HTML parser that checks that a page is well-formed, has no scripts, and loads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.rows: dict[str, int] = {}
        self.table = ""

    @classmethod
    def of(cls, path: Path) -> "Page":
        page = cls()
        text = path.read_text("utf-8")
        page.feed(text)
        assert page.open == []
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        given = dict(attrs)
        assert all(value is None or value.startswith("data:image/") for key, value in attrs if key in ("src", "href"))
        if tag == "table":
            self.table = str(given.get("class"))
        if tag == "tr" and "tbody" in self.open:
            self.rows[self.table] = self.rows.get(self.table, 0) + 1
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2" and data != "How to read this page":
            self.titles.append(data)
