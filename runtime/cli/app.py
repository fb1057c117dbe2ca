"""The command `facemill`. It imports the module of a subcommand only when it runs it."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from .common import handle_errors
from .limits import allow_open_files
from .streams import ensure_utf8_names, open_streams
from .stuck import end_when_stuck

# The one-line help texts are here, so that listing the commands imports none of them.
_COMMANDS = {
    "build-engine": "Compile a model into an engine for this machine.",
    "demo": "Take a tour with synthetic photos: embed, search, a page of answers.",
    "process": "Embed face photos into one searchable file.",
    "search": "Find the photos that are most like a query.",
    "compare": "Say whether two photos show the same person.",
    "pairs": "Find all pairs of photos that may show the same person.",
    "cluster": "Group photos by person.",
    "filter": "Find, list and sort photos by age and gender.",
    "attributes": "Add age and gender to a file that lacks them.",
    "add": "Embed new photos into an existing file.",
    "remove": "Erase photos from a file and from everything made from it.",
    "merge": "Join embedding files.",
    "repair": "Save the intact rows of a damaged file.",
    "export": "Write embeddings as NumPy or Parquet files, or into Qdrant.",
    "plan": "Estimate the time, disk and memory that a job takes.",
    "evaluate": "Measure how well people are recognised.",
    "outcomes": "List the photos without an embedding, and why.",
    "verify": "Check whether an embedding file is intact.",
    "serve": "Answer for photos and files over HTTP.",
    "ui": "Recognise people in the browser, and see files and models.",
    "map": "Draw the embeddings as a map, an HTML page.",
    "models": "List, fetch and verify models.",
    "doctor": "Say what this machine has, and how to fix what is missing.",
}


class _LazyGroup(click.Group):
    """A group of commands that imports only the one that runs."""

    @handle_errors
    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> Any:
        """Run a command: the streams of the process first, then its errors, also those of `--help` and of the end."""
        if args is None:  # the command line of this process
            ensure_utf8_names()
            end_when_stuck()
        open_streams()
        try:
            return super().main(args, *others, **extra)
        finally:
            sys.stdout.flush()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            similar = difflib.get_close_matches(cmd_name, _COMMANDS, 1)
            ctx.fail(f"No such command {cmd_name!r}." + (f" Did you mean {similar[0]!r}?" if similar else ""))
        allow_open_files()
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, name="facemill", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="facemill")
def main() -> None:
    """Turn millions of face photos into one searchable file of embeddings."""


if __name__ == "__main__":
    main(prog_name="facemill")
