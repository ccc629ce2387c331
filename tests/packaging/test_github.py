"""Files for GitHub match their published schemas, and workflows run targets that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
SCHEMAS = {
    "github-workflows": sorted((GITHUB / "workflows").glob("*.yml")),
    "github-issue-forms": [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"],
    "github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "dependabot": [GITHUB / "dependabot.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def violations(schema: str, *files: Path) -> str:
    """Return what check-jsonschema prints of files that do not match a schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    command += ["--force-filetype", "yaml"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ("ok" in done.stdout)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_match_their_schema(schema: str) -> None:
    assert SCHEMAS[schema]
    assert violations(schema, *SCHEMAS[schema]) == ""


def test_invalid_workflow_is_detected(tmp_path: Path) -> None:
    text = SCHEMAS["github-workflows"][0].read_text("utf-8")
    (tmp_path / "ci.yml").write_text(text.replace("runs-on", "runs-in"))
    assert "ci.yml" in violations("github-workflows", tmp_path / "ci.yml")


def test_workflows_run_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    lines = [line for path in SCHEMAS["github-workflows"] for line in path.read_text("utf-8").splitlines()]
    run = [target for line in lines for words in re.findall(r"\bmake ([a-z0-9 -]+)", line) for target in words.split()]
    assert {"docs", "wheels"} <= set(run) <= targets
