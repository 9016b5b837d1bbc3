"""Optimisers that look around before they step."""

from __future__ import annotations

from saddlescape.optim.sam import SAM

__all__ = ["SAM"]
