"""How the runs of a grid are carried out: one after the other, in processes of this machine, or over a Ray cluster."""

from saddlescape.runs.engines.choose import ENGINES, Choice, choose
from saddlescape.runs.engines.events import Epoch, Event, Note, Step, Tell
from saddlescape.runs.engines.job import Engine, Job, Outcome
from saddlescape.runs.engines.processes import Processes
from saddlescape.runs.engines.ray_cluster import RayCluster
from saddlescape.runs.engines.serial import Serial

__all__ = [
    "ENGINES",
    "Choice",
    "Engine",
    "Epoch",
    "Event",
    "Job",
    "Note",
    "Outcome",
    "Processes",
    "RayCluster",
    "Serial",
    "Step",
    "Tell",
    "choose",
]
