"""The command `pneumo`: one thin function for each subcommand."""

from pneumo.cli.commands import app, main

__all__ = ["app", "main"]
