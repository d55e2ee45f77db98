"""The command `sam2-stream`: parses, imports what the command needs, calls, prints. `app` puts the groups together."""

from stream.cli.app import main

__all__ = ["main"]
