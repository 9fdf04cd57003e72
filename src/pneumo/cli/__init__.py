"""The command `pneumo`: one thin function per subcommand."""

from pneumo.cli.commands import app, main

__all__ = ["app", "main"]
