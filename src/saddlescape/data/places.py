"""Where named data sets lie: ``root``, else ``$SADDLESCAPE_DATA`` and the user cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from saddlescape.disk import expanded


def data_roots(root: str | Path | None = None) -> list[Path]:
    """Folders to look in, first one first; a download goes to the first. ``root`` given: only that."""
    if root is not None:
        return [expanded(root)]
    named = os.environ.get("SADDLESCAPE_DATA")
    return [*([expanded(named)] if named else []), user_cache() / "data"]


def user_cache() -> Path:
    """This user's cache folder for saddlescape, by the habit of the operating system."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "saddlescape"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "saddlescape"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "saddlescape"
    return Path.home() / ".cache" / "saddlescape"
