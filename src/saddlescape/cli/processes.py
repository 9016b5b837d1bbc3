"""A command that torchrun starts once per rank: which rank prints, and which commands can share their work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saddlescape.cli.display import hush
from saddlescape.errors import InputError
from saddlescape.parallel.launch import Launch, launched

if TYPE_CHECKING:
    from saddlescape.parallel.ranks import Ranks

SHARED = ("train", "curvature")


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes of this command, joined for as long as it runs; only the first prints."""
    from saddlescape.parallel.ranks import together

    launch = launched()
    if launch is not None and launch.rank > 0:
        hush()
    with together(launch) as ranks:
        yield ranks


def check_command(arguments: Sequence[str], launch: Launch) -> None:
    """Raises InputError for a command that several processes would only do several times over."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command and command not in SHARED:
        raise InputError(
            f"{command} runs in one process and {launch.size} were started: leave out torchrun "
            f"(which is for {' and '.join(SHARED)})"
        )
