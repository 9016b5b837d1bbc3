"""How many processes work at once."""

from __future__ import annotations

import os

SHARE = "SADDLESCAPE_CORES"  # in the environment of a run that shares a machine with others: how many cores are its own


def usable_cores() -> int:
    """Cores that this process may run on, in a container fewer than the machine has, and no more than its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(SHARE, "")
    return min(cores, int(share)) if share.isdigit() and int(share) else cores
