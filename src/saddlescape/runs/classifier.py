"""A scikit-learn classifier for long-tailed vectors: any method of ours on features, measurements or embeddings."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from saddlescape.runs.train import train

LAST_ONLY = 2**31  # evaluate after the last epoch alone


class LongTailClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A linear or other head on rows of features, trained by any method of ``saddlescape methods``.

    Args:
        method: A sum such as ``la`` or a system such as ``plda``; None: the default for features.
        epochs: Length of training; None: follows from the number of rows.
        lr: Learning rate; None: the recipe's.
        random_state: Seed of the initial weights and the order; None: another one at each ``fit``.

    Attributes:
        classes_: The labels, sorted, [C].
        model_: The trained ``torch.nn.Module`` in float64, for rows [N, d, 1, 1] standardised by ``mean_``, ``std_``.
        n_features_in_: d.
    """

    def __init__(
        self,
        method: str | None = None,
        *,
        epochs: int | None = None,
        lr: float | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.method = method
        self.epochs = epochs
        self.lr = lr
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> LongTailClassifier:
        """Train on rows ``X`` [N, d] with labels ``y`` [N] (numbers or words).

        Raises:
            ValueError: what scikit-learn refuses, and InputError (one) for a method that cannot be.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: a classifier needs at least two")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with TemporaryDirectory() as folder:
            data = Path(folder) / "features.npz"
            # All rows train: given as the test set too, none is set aside.
            np.savez(data, features=X, labels=labels, test_features=X, test_labels=labels)
            run = train(
                data, method=self.method, out=Path(folder) / "run", epochs=self.epochs, lr=self.lr, seed=seed,
                device="cpu", precision="float32", compile=False, eval_every=LAST_ONLY, say=lambda line: None,
            )  # fmt: skip
        self.model_ = run.model.double()  # in float32 an answer would depend on the rows beside it
        self.mean_, self.std_ = np.array(run.preprocess.mean), np.array(run.preprocess.std)
        self.logit_scale_ = run.logit_scale
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities [N, C], in the order of ``classes_``."""
        check_is_fitted(self)
        rows = (validate_data(self, X, reset=False, dtype=np.float64) - self.mean_) / self.std_
        with torch.no_grad():
            logits = self.model_(torch.from_numpy(rows)[:, :, None, None])
        return (self.logit_scale_ * logits).softmax(dim=1).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable label of each row [N]."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]
