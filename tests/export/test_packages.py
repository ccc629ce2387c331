"""Packages are layered: no two import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import kdedge_export

ROOT = Path(kdedge_export.__file__).parent


def imported(path: Path) -> set[str]:
    """Return the first name parts of the kdedge_export packages and modules that a file imports."""
    modules = [node.module for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[1] for name in modules if name is not None and name.startswith("kdedge_export.")}


def test_no_two_packages_import_each_other() -> None:
    imports: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        imports.setdefault(own, set()).update(imported(path) - {own})
    assert {"metrics", "onnx_graph"} <= imports["quantization"]
    assert imports["metrics"].isdisjoint({"quantization", "validation", "onnx_import"})
    TopologicalSorter(imports).prepare()  # raises for a cycle
