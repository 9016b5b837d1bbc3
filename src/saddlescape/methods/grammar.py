"""The grammar of sums: one loss, at most one way of balancing, at most one optimiser, joined by "+"."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from saddlescape.errors import InputError
from saddlescape.published import optimizers


@dataclass(frozen=True)
class Term:
    """One word of a sum: its kind ("loss", "balance" or "optimizer"), what it is, and where it comes from."""

    kind: str
    text: str
    source: str


TERMS: dict[str, Term] = {
    "ce": Term("loss", "cross-entropy", "-"),
    "ldam": Term("loss", "label-distribution-aware margins on a cosine head", "Cao et al., NeurIPS 2019"),
    "vs": Term("loss", "vector scaling: multiplicative and additive logit adjustment", "Kini et al., NeurIPS 2021"),
    "la": Term("loss", "logit-adjusted cross-entropy", "Menon et al., ICLR 2021"),
    "bs": Term("loss", "balanced softmax", "Ren et al., NeurIPS 2020"),
    "focal": Term("loss", "focal loss, gamma 1", "Lin et al., ICCV 2017"),
    "ib": Term("loss", "influence-balanced loss from half of training on", "Park et al., ICCV 2021"),
    "drw": Term("balance", "deferred re-weighting with effective numbers", "Cao et al., NeurIPS 2019"),
    "rw": Term("balance", "effective-number re-weighting from the start", "Cui et al., CVPR 2019"),
    "rs": Term("balance", "effective-number re-sampling", "Cui et al., CVPR 2019"),
    "sam": Term("optimizer", "sharpness-aware minimisation", "Foret et al., ICLR 2021"),
    "asam": Term("optimizer", "adaptive SAM", "Kwon et al., ICML 2021"),
    "pgd": Term("optimizer", "perturbed gradient descent", "Jin et al., ICML 2017"),
    "msam": Term("optimizer", "Momentum-SAM: ascent along the momentum, one pass", "Becker et al., NeurIPS 2025"),
    "latesam": Term("optimizer", "SAM in the last quarter of training only", "after Zhou et al., ICLR 2025"),
    "samon": Term("optimizer", "SAM that perturbs normalisation layers only", "Mueller et al., NeurIPS 2023"),
    "partsam": Term("optimizer", "ascent on the tail images and a few others of each batch", "ours"),
    "imbsam": Term("optimizer", "SAM on the tail's loss, plain gradient on the head's", "Zhou et al., ICCV 2023"),
    "ssesam": Term("optimizer", "SAM with a radius for the head and one for the tail", "Lyu et al., AAAI 2025"),
    "focalsam": Term("optimizer", "SAM weighted by class, focal style", "Li et al., ICML 2025"),
    "ccsam": Term("optimizer", "class-conditional perturbation of the classifier", "Zhou et al., CVPR 2023"),
}

OPTIMIZERS: dict[str, str] = {word: str(table["optimizer"]) for word, table in optimizers().items()}
"""Word in a sum -> name in ``saddlescape.optim``."""


@dataclass(frozen=True)
class Sum:
    """A legal sum, in its parts: ``loss`` word, ``balance`` word or "", ``optimizer`` word or "sgd"."""

    loss: str
    balance: str = ""
    optimizer: str = "sgd"

    @property
    def optimizer_only(self) -> bool:
        """Whether it is plain cross-entropy but for the optimiser: what every system can start with."""
        return self.loss == "ce" and not self.balance

    @property
    def row(self) -> str:
        """The part that the published radii depend on: loss and balance, e.g. "ldam+drw"."""
        return f"{self.loss}+{self.balance}" if self.balance else self.loss

    def __str__(self) -> str:
        return self.row if self.optimizer == "sgd" else f"{self.row}+{self.optimizer}"


def words(kind: str) -> list[str]:
    return [word for word, term in TERMS.items() if term.kind == kind]


LEGAL = (
    f"a sum is one loss ({', '.join(words('loss'))}), then at most one of {', '.join(words('balance'))}, "
    f"then at most one of {', '.join(words('optimizer'))}, as in ldam+drw+sam"
)


def parse(method: str) -> Sum:
    """Read a sum such as "ce+drw+sam"; order and case do not matter.

    Raises:
        InputError: an unknown word (with near matches), two of a kind, or no loss; the line says what is legal.
    """
    parts: dict[str, str] = {}
    for word in (piece.strip().lower() for piece in method.split("+")):
        if word not in TERMS:
            near = difflib.get_close_matches(word, TERMS, n=1, cutoff=0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InputError(f"method {method!r}: unknown term {word!r}{hint}; {LEGAL}")
        kind = TERMS[word].kind
        if kind in parts:
            raise InputError(f"method {method!r}: {parts[kind]!r} and {word!r} are both of the kind {kind}; {LEGAL}")
        parts[kind] = word
    if "loss" not in parts:
        raise InputError(f"method {method!r} names no loss (ce+{method.strip()}?); {LEGAL}")
    return Sum(parts["loss"], parts.get("balance", ""), parts.get("optimizer", "sgd"))
