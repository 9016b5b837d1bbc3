"""Spectra class by class: the right Hessians, in any order, resumable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saddlescape.curvature import GaussNewtonOperator, class_spectra


def test_each_class_against_its_dense_hessian(net, dense):
    found = class_spectra(net.model, F.cross_entropy, net.data)
    assert list(found) == [0, 1, 2]
    for label, spectrum in found.items():
        mine = net.targets == label
        truth = torch.linalg.eigvalsh(dense(net.model, net.inputs[mine], net.targets[mine]))
        assert spectrum.lambda_min == pytest.approx(float(truth[0]), rel=1e-8)
        assert spectrum.lambda_max == pytest.approx(float(truth[-1]), rel=1e-8)
        assert (spectrum.num_samples, spectrum.label) == (int(mine.sum()), label)


def test_any_order_of_classes_and_data_and_any_batch_size(net):
    reference = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=15)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    batches = [(net.inputs[i : i + 5], net.targets[i : i + 5]) for i in range(0, 23, 5)]
    others = [
        class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=15, classes=[2, 0, 1]),
        class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=15, batch_size=3),
        class_spectra(net.model, F.cross_entropy, (net.inputs[order], net.targets[order]), lanczos_steps=15),
        class_spectra(net.model, F.cross_entropy, batches, lanczos_steps=15),
    ]
    assert list(others[0]) == [2, 0, 1]
    for other in others:
        for label, spectrum in reference.items():
            assert other[label].lambda_min == pytest.approx(spectrum.lambda_min, rel=1e-10)
            assert other[label].lambda_max == pytest.approx(spectrum.lambda_max, rel=1e-10)
            assert other[label].trace == pytest.approx(spectrum.trace, rel=1e-9)


def test_bit_equal_on_repeat_and_whatever_the_random_state(net):
    first = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=10)
    torch.manual_seed(99)
    second = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=10)
    for label in first:
        assert torch.equal(first[label].ritz_values, second[label].ritz_values)
        assert first[label].summary() == second[label].summary()


def test_class_weights_cancel(net):
    weight = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    plain = class_spectra(net.model, nn.CrossEntropyLoss(), net.data, lanczos_steps=10)
    weighted = class_spectra(net.model, nn.CrossEntropyLoss(weight=weight), net.data, lanczos_steps=10)
    for label in plain:
        assert weighted[label].lambda_max == pytest.approx(plain[label].lambda_max, rel=1e-10)
        assert weighted[label].normaliser == "class weights"


def test_gauss_newton_hides_the_negative_curvature(net):
    whole = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=30)
    part = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=30, operator=GaussNewtonOperator)
    for label in whole:
        assert whole[label].is_saddle_proof and not part[label].is_saddle_proof
        assert part[label].kind == "gauss_newton"


def test_class_of_one_image(net):
    mine = torch.cat([torch.arange(23), torch.tensor([0])])
    targets = net.targets[mine].clone()
    targets[-1] = 7
    found = class_spectra(
        net.model, lambda z, t: F.cross_entropy(z, t % 3), (net.inputs[mine], targets), classes=[7], lanczos_steps=60
    )
    assert found[7].num_samples == 1 and found[7].lambda_max > 0


def test_a_line_for_each_class_with_its_figures(net):
    lines = []
    found = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=3, progress=lines.append)
    assert [line.split(":")[0] for line in lines] == ["class 0", "class 1", "class 2"]
    assert f"lambda_max {found[2].lambda_max:.4g} (not converged); 3 of 3, about 0 s left" in lines[2]
