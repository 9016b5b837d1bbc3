"""The command line: ``saddlescape``, same as ``python -m saddlescape``. One file per command; torch is imported late."""

from saddlescape.cli.app import main

__all__ = ["main"]
