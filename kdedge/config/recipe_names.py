"""Names of the bundled recipes; cheap to import, for the help of the command line."""

from pathlib import Path

__all__ = ["FOLDER", "shipped_recipes"]

FOLDER = Path(__file__).with_name("recipes")
"""Folder of the bundled recipes."""


def shipped_recipes() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
