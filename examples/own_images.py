"""Your own images and your own vectors, from Python.

    python examples/own_images.py photos
"""

# %% A run: method and numbers follow from the images. The same call resumes; a finished run is only opened.
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import saddlescape

photos = Path(sys.argv[1])
run = saddlescape.train(photos, out="runs/photos", epochs=5, model="smallcnn")
print(f"balanced accuracy {run.result['balanced_accuracy']:.1f} %", *run.result["warnings"], sep="\n")

# %% Files, folders and patterns. Later, in another process: saddlescape.open_run("runs/photos").predict(...)
for name, classes in run.predict(photos / "test", top=1):
    print(name, *classes[0])

# %% Rows of numbers (embeddings, measurements): a scikit-learn classifier with any method of `saddlescape methods`.
X, y = load_digits(return_X_y=True)
rare = np.flatnonzero((y >= 5) & (np.arange(len(y)) % 20 != 0))  # five of the ten classes keep a twentieth
train = np.setdiff1d(np.arange(0, len(y), 2), rare)
for method in ("ce", "la"):
    classifier = saddlescape.LongTailClassifier(method, epochs=40).fit(X[train], y[train])
    print(f"{method}: {classifier.score(X[1::2], y[1::2]):.3f} of the balanced test rows are right")
