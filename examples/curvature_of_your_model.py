"""Which classes of your model sit on a saddle? The library on a plain PyTorch model, with nothing else of ours.

    python examples/curvature_of_your_model.py

Trains a small network on scikit-learn's digits, long-tailed (class 0: 150 images, class 9: 5), for some seconds; then
prints for each class the extreme curvatures of its own loss with their errors, what the average over all classes
shows instead, and what SAM's step would do along the most negative direction of the worst class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from saddlescape.curvature import class_spectra, sam_gain, spectrum

torch.manual_seed(0)

# Your data: inputs [N, ...] and integer targets [N], or a DataLoader without augmentation.
digits = load_digits()
counts = [int(150 * (5 / 150) ** (c / 9)) for c in range(10)]
kept = torch.cat([torch.from_numpy((digits.target == c).nonzero()[0][:n]) for c, n in enumerate(counts)])
inputs = torch.from_numpy(digits.images[kept.numpy()]).float()[:, None] / 16
targets = torch.from_numpy(digits.target[kept.numpy()]).long()

# Your model, trained your way.
model = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1),
    nn.BatchNorm2d(12),
    nn.ReLU(),
    nn.Conv2d(12, 24, 3, stride=2, padding=1),
    nn.BatchNorm2d(24),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(24 * 16, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for _ in range(6):
    for batch in torch.randperm(len(inputs)).split(32):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()

model.eval()
spectra = class_spectra(model, F.cross_entropy, (inputs, targets), lanczos_steps=40)
whole = spectrum(model, F.cross_entropy, (inputs, targets), lanczos_steps=40)

print("class  images    loss  lambda_min   +-       lambda_max   +-       ratio  negative curvature")
for label, s in [*spectra.items(), ("all", whole)]:
    verdict = "proved" if s.is_saddle_proof else "none beyond rounding"
    if not s.converged:
        verdict += ", value not settled"
    print(
        f"{label!s:>5}  {s.num_samples:6d}  {s.loss:6.3f}  {s.lambda_min:10.4g}  {s.residuals[0]:.0e}"
        f"  {s.lambda_max:10.4g}  {s.residuals[1]:.0e}  {s.nonconvexity:8.3f}  {verdict}"
    )

worst = max(spectra, key=lambda label: spectra[label].nonconvexity)
gain = sam_gain(model, F.cross_entropy, (inputs, targets), [0.05, 0.2, 0.8], label=worst)
print(f"\nSAM along the most negative direction of class {worst} (lambda {gain.eigenvalue:.4g}):")
for row in gain.summary():
    turned = "turned round" if row["sign"] < 0 else "same way"
    print(
        f"  rho {row['rho']:4}: component squared x {row['gain']:.3g} ({turned}), theory x {row['predicted_gain']:.3g}"
    )
print(f"  theory: amplified beyond rho = {gain.rho_threshold:.3g}")
