"""Loss surfaces against the loss itself and against their own Taylor polynomial."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saddlescape.curvature import Surface, loss_surface
from saddlescape.curvature.function import LossFunction
from saddlescape.curvature.surface import filter_normalised
from saddlescape.errors import InputError


def test_near_the_middle_it_is_the_taylor_polynomial(net):
    found = loss_surface(net.model, F.cross_entropy, net.data, span=1e-3, steps=5, classes=[0, 2], tol=1e-8)
    a, b = np.meshgrid(found.alphas, found.betas, indexing="ij")
    for k, label in enumerate(found.labels):
        (s1, s2), (c1, c2) = found.slopes[k], found.curvatures[k]
        taylor = found.center[k] + s1 * a + s2 * b + 0.5 * (c1 * a**2 + c2 * b**2)
        np.testing.assert_allclose(found.of(label), taylor, atol=1e-8)
        assert c1 < 0 < c2


def test_equals_the_loss_at_moved_weights(mlp):
    options = {"directions": "random", "dims": 1, "span": 0.2, "steps": 3, "batch_size": 7}
    found = loss_surface(mlp.model, F.cross_entropy, mlp.data, **options)
    function = LossFunction(mlp.model, F.cross_entropy)
    pieces = function.split(filter_normalised(function, seed=0))
    for alpha, value in zip(found.alphas, found.of(), strict=True):
        moved = copy.deepcopy(mlp.model)
        with torch.no_grad():
            for p, piece in zip(moved.parameters(), pieces, strict=True):
                p.add_(float(alpha) * piece)
            truth = float(F.cross_entropy(moved(mlp.inputs), mlp.targets))
        assert value == pytest.approx(truth, rel=1e-12)
    assert found.betas.size == 0


def test_filter_normalisation(net):
    direction = LossFunction(net.model, F.cross_entropy)
    pieces = direction.split(filter_normalised(direction, seed=3))
    for piece, weight in zip(pieces, net.model.parameters(), strict=True):
        if weight.dim() < 2:
            assert torch.equal(piece, torch.zeros_like(piece))
        else:
            torch.testing.assert_close(piece.flatten(1).norm(dim=1), weight.detach().flatten(1).norm(dim=1))


def test_same_seed_same_numbers_weights_untouched(net):
    before = {k: v.clone() for k, v in net.model.state_dict().items()}
    options = {"directions": "random", "span": 0.5, "steps": 3}
    first = loss_surface(net.model, F.cross_entropy, net.data, **options)
    second = loss_surface(net.model, F.cross_entropy, net.data, **options)
    other = loss_surface(net.model, F.cross_entropy, net.data, seed=1, **options)
    assert np.array_equal(first.losses, second.losses) and not np.array_equal(first.losses, other.losses)
    assert all(torch.equal(v, before[k]) for k, v in net.model.state_dict().items())
    assert first.of()[1, 1] == first.center[0]


def test_save_and_load(mlp, tmp_path):
    found = loss_surface(mlp.model, F.cross_entropy, mlp.data, directions="random", steps=3, classes=[2, 0])
    found.save(tmp_path / "s.npz")
    again = Surface.load(tmp_path / "s.npz")
    assert np.array_equal(again.losses, found.losses) and again.labels == (2, 0) and again.losses.shape == (2, 3, 3)
    with pytest.raises(InputError, match="labels"):
        again.of(1)
    (tmp_path / "s.npz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"s\.npz"):
        Surface.load(tmp_path / "s.npz")
