"""Mutation tests of the numerical core: `make mutants`.

mutmut changes one expression at a time and runs the tests that call the changed function. This script creates a flat
tree of the three packages for each group of `groups.toml`, excludes the mutants explained in `equivalent.toml`, and
writes `build/mutants/scores.json` and one `survivors.txt` per group.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from mutmut.configuration import reset_config
from mutmut.mutation.diff_apply import get_diff_for_mutant

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "mutants"
PACKAGES = {
    "kdedge": "kdedge",
    "kdedge_export": "export/kdedge_export",
    "kdedge_runtime": "runtime/kdedge_runtime",
}
KILLED = {1, 3, 24, -24, 36, 152, 255, -9, -11}
"""Exit codes of a failed test, a pytest error, a timeout and a crash."""
TEXT = re.compile(r'"[^"]*"|\'[^\']*\'')
COUNTS = ("total", "killed", "equivalent", "survived")
GOAL = 0.95


def stage(group: dict[str, Any], never: list[str]) -> Path:
    """Copy packages and tests into a tree where a module's path equals its name, and configure mutmut there."""
    folder: Path = BUILD / str(group["name"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in {**PACKAGES, "tests": "tests"}.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "mutation"))
    settings = {
        "source_paths": list(PACKAGES),
        "only_mutate": group["modules"],
        "do_not_mutate_patterns": never,
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": group["tests"],
        "use_git_change_detection": False,
    }
    # JSON strings and lists are also valid TOML.
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")
    return folder


def exit_codes(folder: Path) -> dict[str, dict[str, int | None]]:
    """Read the exit codes of pytest by module and mutant."""
    return {
        str(path.relative_to(folder / "mutants").with_suffix("")): json.loads(path.read_bytes())["exit_code_by_key"]
        for path in sorted((folder / "mutants").rglob("*.py.meta"))
    }


def run_mutants(folder: Path, workers: int, again: bool) -> None:
    """Run mutmut on all mutants of a group, or again on those that survived the last run."""
    chosen = []
    if again:
        codes = exit_codes(folder).values()
        chosen = [name for module in codes for name, code in module.items() if code not in KILLED]
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)
        if not chosen:
            return
    else:
        shutil.rmtree(folder / "mutants", ignore_errors=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", str(workers), *chosen]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    (folder / "mutmut.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nmutmut failed in {folder}")


def change(mutant: str, module: str) -> tuple[str, str]:
    """Return the changed lines of a mutant of this folder, before and after, each joined into one line."""
    lines = get_diff_for_mutant(mutant, path=module).splitlines()
    body = lines[next(number for number, line in enumerate(lines) if line.startswith("@@")) :]
    before, after = ([line[1:].strip() for line in body if line.startswith(sign)] for sign in "-+")
    return " ".join(before), " ".join(after)


def is_wording(before: str, after: str) -> bool:
    """Return whether only a text with spaces changed: tests assert key tokens of messages, not sentences."""
    changed = [a for a, b in zip(TEXT.findall(before), TEXT.findall(after), strict=False) if a != b]
    return after.replace("XX", "").lower() == before.lower() and any(" " in text for text in changed)


def report(folder: Path, explained: set[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Count a group's mutants by module, and write the unexplained survivors to a file."""
    rows, survivors = [], []
    for module, codes in exit_codes(folder).items():
        counts: Counter[str] = Counter()
        for mutant, code in codes.items():
            before, after = change(mutant, module)
            if is_wording(before, after):
                continue
            verdict = "killed" if code in KILLED else "survived"
            if verdict == "survived" and (module, before, after) in explained:
                verdict = "equivalent"
            counts.update(("total", verdict))
            if verdict == "survived":
                survivors.append(f"{mutant} ({code})\n- {before}\n+ {after}\n")
        if counts["total"]:
            rows.append({"module": module, **{key: counts[key] for key in COUNTS}})
    (folder / "survivors.txt").write_text("\n".join(survivors), encoding="utf-8")
    return rows


def show(rows: list[dict[str, Any]]) -> float:
    """Print one line per module and return the fraction of killed mutants among those that are not equivalent."""
    print("| module | mutants | killed | equivalent | survived | score |\n|---|---|---|---|---|---|")
    total = {"module": "all", **{key: sum(row[key] for row in rows) for key in COUNTS}}
    for row in [*rows, total]:
        row["score"] = row["killed"] / max(row["killed"] + row["survived"], 1)
        positions = [str(row[key]) for key in ("module", *COUNTS)]
        print(f"| {' | '.join(positions)} | {row['score']:.1%} |")
    return float(total["score"])


def main() -> None:
    """Run the given groups, or all, and fail below the goal."""
    parser = argparse.ArgumentParser(description="Run mutation tests on the numerical core.")
    parser.add_argument("groups", nargs="*", help="names of groups [default: all]")
    parser.add_argument("--again", action="store_true", help="rerun only the survivors of the last run")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of parallel processes")
    options = parser.parse_args()
    settings = tomllib.loads((HERE / "groups.toml").read_text(encoding="utf-8"))
    known = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8")).get("equivalent", [])
    explained = {(entry["module"], entry["before"], entry["after"]) for entry in known}
    if unknown := set(options.groups) - {group["name"] for group in settings["group"]}:
        sys.exit(f"unknown group {', '.join(sorted(unknown))}; groups.toml names them")
    rows = []
    for group in settings["group"]:
        if not options.groups or group["name"] in options.groups:
            folder = stage(group, settings["never"])
            run_mutants(folder, options.workers, options.again)
            reset_config()
            with contextlib.chdir(folder):
                rows += report(Path.cwd(), explained)
    score = show(rows)
    (BUILD / "scores.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if score < GOAL:
        sys.exit(f"{score:.1%} of the mutants are killed, fewer than {GOAL:.0%}; see build/mutants/*/survivors.txt")


if __name__ == "__main__":
    main()
