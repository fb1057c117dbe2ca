"""`facemill`: one command for everything. A command's module is imported when the command is."""

from __future__ import annotations

import importlib

import click

from .. import __version__

# The one-line helps stand here, so that the list of commands imports none of them.
_COMMANDS = {
    "build-engine": "Compile a model into an engine for this machine.",
    "demo": "Take a tour with synthetic photos: embed, search, a page of answers.",
    "process": "Embed face photographs into one searchable file.",
    "search": "Find the photographs most like a query.",
    "compare": "Say whether two photographs show one person.",
    "pairs": "Find all pairs of photographs that look like one person.",
    "cluster": "Put together the photographs of each person.",
    "add": "Embed new photographs into an existing file.",
    "remove": "Erase photographs from a file and all that was made from it.",
    "merge": "Join two embedding files.",
    "repair": "Save what is whole of a damaged file.",
    "export": "Write the embeddings as NumPy or Parquet files, or into Qdrant.",
    "plan": "Say what a job will take in time, disk and memory.",
    "evaluate": "Measure how well it recognises people.",
    "verify": "Say whether an embedding file is whole.",
    "map": "Draw the embeddings as a page to look at.",
    "models": "List, fetch and verify models.",
    "doctor": "Say what this machine has, and how to mend what is missing.",
}


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name.replace('-', '_')}", __package__)
        command: click.Command = module.main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, name="facemill", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="facemill")
def main() -> None:
    """Millions of face photographs into a searchable set of embeddings, overnight, on one machine."""


if __name__ == "__main__":
    main(prog_name="facemill")
