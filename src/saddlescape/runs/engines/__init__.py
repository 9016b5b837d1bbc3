"""How the runs of a grid are executed: one after the other, in processes of this machine, or over a Ray cluster."""

from saddlescape.runs.engines.choose import ENGINES, Choice, choose
from saddlescape.runs.engines.events import Emit, Epoch, Event, Note, Step
from saddlescape.runs.engines.job import Engine, Job, Outcome, serial
from saddlescape.runs.engines.processes import Processes
from saddlescape.runs.engines.ray_cluster import RayCluster

__all__ = [
    "ENGINES",
    "Choice",
    "Emit",
    "Engine",
    "Epoch",
    "Event",
    "Job",
    "Note",
    "Outcome",
    "Processes",
    "RayCluster",
    "Step",
    "choose",
    "serial",
]
