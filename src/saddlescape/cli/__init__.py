"""The command line: ``saddlescape``, same as ``python -m saddlescape``. A file per command; torch comes late."""

from saddlescape.cli.app import main

__all__ = ["main"]
