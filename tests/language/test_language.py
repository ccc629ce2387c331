"""The check of names and docstrings: it accepts the packages, and reports each kind of violation."""

from pathlib import Path

import language
import pytest

SOUND = '"""Models by name."""\n\nLIMIT = 3\n"""Largest number of models."""\n'


def package(folder: Path, **modules: str) -> language.Package:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return language.Package("toy", folder)


@pytest.mark.parametrize("own", language.packages(), ids=lambda own: own.name)
def test_packages_keep_to_the_rules(own: language.Package) -> None:
    assert language.faults(own) == []


def test_sound_module_has_no_faults(tmp_path: Path) -> None:
    assert language.faults(package(tmp_path, models=SOUND)) == []


@pytest.mark.parametrize(
    "text",
    [
        '"""What models are called."""\n',
        'LIMIT = 3\n"""Of the models."""\n',
        'def build() -> None:\n    """Whether to build."""\n',
        'class Model:\n    size: int\n    """How large it is."""\n',
    ],
    ids=["module", "constant", "function", "attribute"],
)
def test_dependent_docstring_is_reported(text: str, tmp_path: Path) -> None:
    faults = language.faults(package(tmp_path, models=text))
    assert len(faults) == 2 and "docstrings" in faults[0]


@pytest.mark.parametrize(
    "text",
    [
        "class Lesson:\n    pass\n",
        "picture = 3\n",
        "# grey images\n",
        "SteadyScale = 1\n",
        "user_asked = 3\n",
        "def _told() -> None: ...\n",
        "complaint = 2\n",
        "def look_closer() -> None: ...\n",
    ],
)
def test_retired_name_is_reported(text: str, tmp_path: Path) -> None:
    assert len(language.faults(package(tmp_path, models=text))) == 1


@pytest.mark.parametrize("name", ["page.html", "page.js", "page.css"])
def test_retired_name_in_a_page_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("#told {}\n")
    assert len(language.faults(package(tmp_path, models=SOUND))) == 1


def test_module_with_a_retired_name_is_reported(tmp_path: Path) -> None:
    assert len(language.faults(package(tmp_path, surgery=SOUND))) == 1


def test_class_that_is_defined_twice_is_reported(tmp_path: Path) -> None:
    faults = language.faults(package(tmp_path, one="class Layer:\n    pass\n", two="class Layer:\n    pass\n"))
    assert len(faults) == 1 and "class Layer" in faults[0]


def test_module_name_that_occurs_twice_is_reported(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "models.py").write_text(SOUND)
    faults = language.faults(package(tmp_path, models=SOUND))
    assert len(faults) == 1 and "module models" in faults[0]


@pytest.mark.parametrize("name", ["page.md", "device.toml"])
@pytest.mark.parametrize("word", ["colours", "centre", "standardised", "whatever", "but for"])
def test_retired_word_in_a_document_is_reported(name: str, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"Colors.\nExact {word} a constant.\n")
    (fault,) = language.document_faults([tmp_path / name])
    assert f"{name}:2: {word}" in fault


def test_retired_word_in_a_schema_is_reported(tmp_path: Path) -> None:
    (tmp_path / "report.schema.json").write_text('{"description": "Grey images."}\n')
    assert len(language.faults(package(tmp_path, models=SOUND))) == 1


def test_pages_of_the_checkout_keep_to_the_rules() -> None:
    pages = language.documents()
    assert {"README.md", "gates.md", "generic.toml", "default.toml"} <= {path.name for path in pages}
    assert language.document_faults(pages) == []
    assert language.sentence_faults(pages, language.RULES["long_sentences"]) == []


LONG = "This sentence has " + "very " * 16 + "many words. This one is short.\n"
"""Sentence of 21 words and one of four."""


def page(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "page.md"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("most", "faults"), [(0, 2), (1, 0), (2, 1)], ids=["more", "equal", "fewer"])
def test_number_of_long_sentences_equals_the_baseline(most: int, faults: int, tmp_path: Path) -> None:
    found = language.sentence_faults([page(tmp_path / "benchmarks", LONG)], most)
    assert len(found) == faults
    assert most != 0 or "page.md: 21 words, 20 are allowed: This sentence has" in found[1]


def test_other_pages_have_no_long_sentences(tmp_path: Path) -> None:
    pages = [page(tmp_path / "how-to", LONG), page(tmp_path / "benchmarks", LONG)]
    (found,) = language.sentence_faults(pages, 1)
    assert "how-to" in found


@pytest.mark.parametrize(
    "text",
    [
        f"# {LONG}",
        f"| {LONG.strip()} |\n",
        f"```\n{LONG}```\n",
        f"<!-- {LONG} -->\n",
        f"![{LONG.strip()}](image.webp)\n",
        f"Code: `{LONG.strip()}`\n",
        f"[A link]({LONG.replace(' ', '-').strip()})\n",
        "- " + "word " * 15 + "\n- " + "word " * 15 + "\n",
        "word " * 15 + "\n\n" + "word " * 15 + "\n",
    ],
    ids=["heading", "table", "fence", "comment", "image", "code", "link", "list", "paragraphs"],
)
def test_sentences_are_those_of_the_prose(text: str, tmp_path: Path) -> None:
    assert language.sentence_faults([page(tmp_path, text)], 0) == []


def test_wrapped_sentence_is_counted_whole(tmp_path: Path) -> None:
    text = "- " + "word " * 15 + "\n  " + "word " * 15 + "\n"
    assert len(language.sentence_faults([page(tmp_path, text)], 0)) == 1
