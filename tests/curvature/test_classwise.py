"""Spectra class by class: the right Hessians, in any order, resumable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saddlescape.curvature import class_spectra
from saddlescape.curvature import classwise as module
from saddlescape.errors import InputError


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
    part = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=30, kind="gauss_newton")
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


def test_sample_of_a_class_is_fixed_and_told(net):
    found = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=5, max_samples=5)
    again = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=5, max_samples=5)
    assert (found[0].num_samples, found[0].num_available) == (5, 12) and found[0].sampling_error > 0
    assert (found[2].num_samples, found[2].num_available, found[2].sampling_error) == (4, 4, 0.0)
    assert found[0].lambda_max == again[0].lambda_max


def test_resumes_finished_classes_and_the_run_in_progress(net, tmp_path, monkeypatch):
    whole = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=12)
    monkeypatch.setattr(module, "_SAVE_EVERY", 5)

    def stop_in_class_1(line):
        if line.startswith("class 1: step 10"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        class_spectra(
            net.model, F.cross_entropy, net.data, lanczos_steps=12, save_to=tmp_path, progress=stop_in_class_1
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["class_0.npz", "class_1.partial.npz"]
    lines = []
    again = class_spectra(
        net.model, F.cross_entropy, net.data, lanczos_steps=12, save_to=tmp_path, progress=lines.append
    )
    assert not any(line.startswith(("class 0: step", "class 1: step")) for line in lines)
    for label in whole:
        assert torch.equal(again[label].ritz_values, whole[label].ritz_values)
        assert again[label].trace == whole[label].trace
    assert sorted(p.name for p in tmp_path.iterdir()) == ["class_0.npz", "class_1.npz", "class_2.npz"]
    with torch.no_grad():
        net.model[7].bias.add_(0.5)
    changed = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=12, save_to=tmp_path)
    assert changed[0].lambda_max != whole[0].lambda_max


def test_another_loss_is_not_taken_for_the_same(net, tmp_path):
    options = {"lanczos_steps": 4, "save_to": tmp_path, "classes": [0]}
    plain = class_spectra(net.model, lambda z, t: F.cross_entropy(z, t), net.data, **options)
    smooth = class_spectra(net.model, lambda z, t: F.cross_entropy(z, t, label_smoothing=0.3), net.data, **options)
    assert smooth[0].lambda_max != plain[0].lambda_max


def test_damaged_file_is_measured_again(net, tmp_path):
    whole = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=4, save_to=tmp_path)
    (tmp_path / "class_1.npz").write_bytes(b"no zip")
    again = class_spectra(net.model, F.cross_entropy, net.data, lanczos_steps=4, save_to=tmp_path)
    assert again[1].lambda_max == whole[1].lambda_max


def test_wrong_arguments_are_told(net):
    for options, words in [
        ({"kind": "fisher"}, "kind"),
        ({"classes": []}, "no class"),
        ({"probes": 0}, "probes"),
        ({"lanczos_steps": 0}, "at least 1 step"),
        ({"max_samples": 0}, "max_samples"),
        ({"mode": "both"}, "mode"),
    ]:
        with pytest.raises(InputError, match=words):
            class_spectra(net.model, F.cross_entropy, net.data, **options)
