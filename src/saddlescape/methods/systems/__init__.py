"""Named systems of several stages. A system is one file in this folder and one line here."""

from __future__ import annotations

from saddlescape.methods.systems.cc_sam import CC_SAM
from saddlescape.methods.systems.contrastive import BCL, PROCO
from saddlescape.methods.systems.crt import CRT
from saddlescape.methods.systems.disalign import DISALIGN
from saddlescape.methods.systems.dro_lt import DRO_LT
from saddlescape.methods.systems.glmc import GLMC
from saddlescape.methods.systems.lws import LWS
from saddlescape.methods.systems.mislas import MISLAS
from saddlescape.methods.systems.ncm import NCM
from saddlescape.methods.systems.ours import OURS
from saddlescape.methods.systems.plda import PLDA
from saddlescape.methods.systems.system import System
from saddlescape.methods.systems.tau_norm import TAU_NORM

SYSTEMS: dict[str, System] = {
    "crt": CRT,
    "lws": LWS,
    "tau-norm": TAU_NORM,
    "ncm": NCM,
    "plda": PLDA,
    "mislas": MISLAS,
    "disalign": DISALIGN,
    "dro-lt": DRO_LT,
    "cc-sam": CC_SAM,
    "glmc": GLMC,
    "bcl": BCL,
    "proco": PROCO,
    "ours": OURS,
}

__all__ = ["SYSTEMS", "System"]
