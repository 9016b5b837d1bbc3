"""ResNet-32 on real CIFAR-10 images: extremes against SciPy's eigsh on plain double backward."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from saddlescape.curvature import build_operator, extremes
from saddlescape.models.resnet_cifar import ResNetCifar

DATA = Path(os.environ.get("SADDLESCAPE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def images_of_one_class(count):
    shards = sorted((DATA / "cifar10").glob("test-*.parquet"))
    if not shards:
        pytest.skip("needs the real CIFAR-10 images under SADDLESCAPE_DATA")
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow to read CIFAR-10 (extra 'parquet')")
    table = pq.read_table(shards[0]).slice(0, 400)
    label_name = next(name for name in table.column_names if "label" in name)
    image_name = next(name for name in table.column_names if name in ("img", "image"))
    rows = [i for i, label in enumerate(table[label_name].to_pylist()) if label == 3][:count]
    pixels = [np.asarray(Image.open(io.BytesIO(table[image_name][i].as_py()["bytes"]))) for i in rows]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.slow
def test_resnet32_extremes_against_eigsh():
    x = images_of_one_class(6)
    y = torch.full((len(x),), 3)
    torch.manual_seed(0)
    model = ResNetCifar(32, nn.Linear(64, 10))
    model.train()
    with torch.no_grad():
        for _ in range(20):  # running statistics of these images, so that eval mode is the network at work
            model(x)
    model.eval()

    params = list(model.parameters())
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(F.cross_entropy(model(x), y), params, create_graph=True)]
    )

    def product(v):
        parts = torch.autograd.grad(gradient, params, torch.from_numpy(v).float().flatten(), retain_graph=True)
        return torch.cat([p.flatten() for p in parts]).double().numpy()

    n = len(gradient)
    truth = np.sort(
        eigsh(
            LinearOperator((n, n), matvec=product, dtype=np.float64),
            k=2,
            which="BE",
            tol=1e-6,
            return_eigenvectors=False,
        )
    )
    for method in ("double_backward", "traced"):
        operator = build_operator(model, F.cross_entropy, (x, y), method=method, check=False)
        found = extremes(operator, tol=1e-3, basis=30)
        assert operator.function.notes == []
        assert found.smallest[0].value == pytest.approx(truth[0], rel=1e-4)
        assert found.largest[0].value == pytest.approx(truth[-1], rel=1e-4)
        assert found.smallest[0].is_proof
