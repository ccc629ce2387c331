"""Colors of all pages and charts, in light and dark mode."""

__all__ = ["PALETTE", "RUN_COLORS"]

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fcfcfb", "#131316"),
    "card": ("#ffffff", "#1a1a1f"),
    "ink": ("#17171c", "#ececf1"),
    "soft": ("#666672", "#9d9daa"),
    "line": ("#e3e3e6", "#2f2f37"),
    "faint": ("#f1f1f3", "#212127"),
    "good": ("#157347", "#5bd197"),
    "bad": ("#b3261e", "#ff8a80"),
    "unsure": ("#8a5a00", "#f0b95a"),
    "heat": ("#b0187f", "#ff7ac6"),
    "bar": ("#8c8c99", "#71717f"),
    "run-0": ("#1767b3", "#62b2f7"),
    "run-1": ("#cf4a0a", "#ff8d52"),
    "run-2": ("#0a8562", "#3fcf9f"),
    "run-3": ("#b23a8e", "#f17fcb"),
    "run-4": ("#9a6b00", "#e3b53f"),
    "run-5": ("#6a4fc8", "#ab97ff"),
    "run-6": ("#1f8fa8", "#62d0e6"),
    "run-7": ("#6d6d78", "#a8a8b5"),
}
"""Mapping from CSS variable to its light and dark color; all light colors differ, so that a chart can be recolored."""

RUN_COLORS = tuple(name for name in PALETTE if name.startswith("run-"))
"""Names of the colors of data series."""
