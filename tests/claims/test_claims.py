"""Each figure of README and docs has a command, and a figure without one is detected."""

import subprocess
import sys
from pathlib import Path

import check as claims
import pytest
from check import CLAIMS, PAGES, Entry, check, read_entries, read_pages
from commands import ROOT, line_objections
from figures import statements


def figures(text: str) -> list[str]:
    return [figure for statement in statements(text) for figure in statement.figures]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It takes 12 ms.", ["12 ms"]),
        ("It takes 1.07 × the time, and 3 times the memory.", ["1.07 ×", "3 times"]),
        ("Accuracy rises by ten points, to 84%.", ["ten points", "84%"]),
        ("The file has 5.1 MB.", ["5.1 MB"]),
        ("Maps correlate at 0.983 (Pearson).", ["0.983"]),
        ("Errors are at most 8e-6.", ["8e-6"]),
        ("The student is 1/36 of it.", ["1/36"]),
        ("It answers 1,300 frames a second.", ["1,300 frames a second"]),
        ("| model | size |\n|---|---|\n| a | 3.1 MB |", ["3.1 MB"]),
        ("```\nkdedge demo    # about four minutes\n```", ["four minutes"]),
    ],
)
def test_numbers_with_unit_or_decimal_point_are_figures(text: str, expected: list[str]) -> None:
    assert figures(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Input of 224 × 224 px, 22 classes, opset 18.",
        "With Python 3.11 and onnxruntime 1.29, under CC BY 4.0, version 1.30.0.",
        "The row top-1 of (Hinton et al., 2015).",
        "```\nkdedge train DATA --lr 0.05\n```",
        "The [page](https://example.org/0.98/) says so.",
    ],
)
def test_sizes_versions_years_and_code_are_not_figures(text: str) -> None:
    assert figures(text) == []


def test_paragraphs_are_split_into_sentences_and_tables_are_one_statement() -> None:
    table = "| a | b |\n|---|---|\n| 1.5 | 2.5 |\n| 3.5 | 4.5 |"
    found = list(statements(f"# Speed\n\nIt takes 3 ms. That is\n0.5 × the time. Fine.\n\n{table}\n"))
    assert [statement.section for statement in found] == ["Speed"] * 3
    assert [statement.text for statement in found[:2]] == ["It takes 3 ms.", "That is 0.5 × the time."]
    assert found[2].figures == ("1.5", "2.5", "3.5", "4.5")


def test_each_figure_has_a_command_or_a_location_in_the_code() -> None:
    listed, problems = check(read_pages(), read_entries(CLAIMS.read_text("utf-8")))
    assert problems == []
    benchmarks = {page for page in PAGES if page.startswith(".github/docs/benchmarks/") and "index" not in page}
    assert {line.partition(",")[0] for line in listed} >= {"README.md", *benchmarks}
    assert len(benchmarks) == 12


@pytest.mark.parametrize("planted", ["It is 97% right.", "| planted | ms |\n|---|---|\n| here | 1.25 |"])
def test_figure_without_command_is_detected_on_every_page(planted: str) -> None:
    pages, entries = read_pages(), read_entries(CLAIMS.read_text("utf-8"))
    _, before = check(pages, entries)
    _, problems = check({page: f"{text}\n\n{planted}\n" for page, text in pages.items()}, entries)
    places = [problem.partition(", ")[0] for problem in problems if problem not in before]
    assert places == [f"no command: {page}" for page in PAGES]


def test_entry_without_figure_is_detected() -> None:
    pages = {"README.md": "It takes 3 ms."}
    entry = Entry(("README.md: It takes 3 ms", "README.md: It takes 4 ms"), ("make test",), "any machine")
    _, problems = check(pages, [entry])
    assert len(problems) == 1
    assert "It takes 4 ms" in problems[0]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Entry(("README.md: 3 ms",), (), "any machine"), "no command"),
        (Entry(("README.md: 3 ms",), ("make test",)), "needs"),
        (Entry(("README.md: 3 ms",), where="kdedge/no_such_file.py:NAME"), "no_such_file"),
        (Entry(("README.md: 3 ms",), where="pyproject.toml:NO_SUCH_NAME"), "NO_SUCH_NAME"),
        (Entry(("README.md: 3 ms",), where="pyproject.toml"), "pyproject.toml"),
    ],
)
def test_incomplete_entry_is_detected(entry: Entry, expected: str) -> None:
    _, problems = check({"README.md": "It takes 3 ms."}, [entry])
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kdedge distil DATA", "distil"),
        ("kdedge distill DATA --no-such-option 3", "--no-such-option"),
        ("kdedge-run model.onnx --no-such-option", "--no-such-option"),
        ("kdedge-run bench model.onnx --source 0", "kdedge-run bench does not take --source"),
        ("python tests/benchmarks/no_such.py DATA", "no_such.py"),
        ("python tests/benchmarks/quality.py DATA --no-such-option", "--no-such-option"),
        ("pytest tests/claims/test_claims.py::test_no_such", "test_no_such"),
        ("make no-such-target", "no-such-target"),
        ("look at it", "look at it"),
    ],
)
def test_invalid_command_is_detected(line: str, expected: str) -> None:
    problems = line_objections(line)
    assert len(problems) == 1
    assert expected in problems[0]


def test_command_lists_figures_with_their_commands() -> None:
    command = [sys.executable, str(ROOT / "tests" / "claims" / "check.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "README.md, Results: " in done.stdout
    assert "make test-models   [one x86 core" in done.stdout


def test_command_fails_for_figures_without_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "claims.toml").write_text("")
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "claims.toml")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "read_pages", lambda: {"README.md": "It takes 3 ms."})
    with pytest.raises(SystemExit, match="no command: README"):
        claims.main()
