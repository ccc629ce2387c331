"""MkDocs hook: generate the command reference from the command line itself, at build time."""

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command

from kdedge.cli.app import app
from kdedge_runtime.cli.main import SUBCOMMANDS, build_parser

PAGE = "reference/cli.md"
_PASSED_ON = "run"
"""Command whose options the runtime parses."""
_OPENING = """# Commands

Logs go to stderr, data to stdout. Every command of the workflow ends with the next one to type.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | any other error |
| 2 | usage error |
| 3 | missing package |
| 4 | failed check |
| 5 | source error |
| 130 | interrupted |
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """Return the page in Markdown: all commands of `kdedge`, with the options of `kdedge-run`."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    context = typer.Context(group, info_name="kdedge")
    sections = [
        _run_section()
        if name == _PASSED_ON
        else get_docs_for_click(obj=command, ctx=context, indent=1, call_prefix="kdedge")
        for name, command in group.commands.items()
    ]
    return "\n\n".join([_OPENING, *sections])


def _run_section() -> str:
    helps = [build_parser("kdedge run", name).format_help() for name in (None, *SUBCOMMANDS)]
    blocks = "\n".join(f"```text\n{text}```\n" for text in helps)
    return f"## `kdedge run`\n\n`kdedge-run`, on a device, is the same command.\n\n{blocks}"
