"""Named systems of several stages: ``table.py`` lists them; a file of its own has what is more than a few numbers."""

from saddlescape.methods.systems.system import System
from saddlescape.methods.systems.table import SYSTEMS

__all__ = ["SYSTEMS", "System"]
