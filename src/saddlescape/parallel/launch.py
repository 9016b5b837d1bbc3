"""What torchrun sets in the environment of each process of one run. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from saddlescape.errors import InputError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ReportedElsewhere(Exception):
    """This process ends because of its cause, which another process of the run reports."""


@dataclass(frozen=True)
class Launch:
    """``rank`` of ``size`` processes, ``local_rank`` of ``local_size`` on this machine; they meet at ``host:port``."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """None for a process that is alone: started without torchrun (or what sets its variables), or with one process.

    Raises:
        InputError: a variable that is not a number.
    """
    if any(not environment.get(name) for name in NAMES):
        return None
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        default = environment["RANK" if name == "LOCAL_RANK" else "WORLD_SIZE"]
        try:
            numbers[name] = int(environment.get(name) or default)
        except ValueError:
            raise InputError(
                f"the environment's {name} is {environment[name]!r}, no number: start with torchrun, or unset it"
            ) from None
    if numbers["WORLD_SIZE"] < 2:
        return None
    return Launch(
        numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"], numbers["LOCAL_WORLD_SIZE"],
        environment["MASTER_ADDR"], numbers["MASTER_PORT"],
    )  # fmt: skip
