"""Each objective against a slow formula in float64, and what it keeps between steps and in checkpoints."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses import ProCoLoss, build_loss
from saddlescape.models import make_head
from saddlescape.training.objective import Classify, EpochFacts, Objective
from saddlescape.training.objectives import OBJECTIVES

COUNTS = [90, 30, 3]
CLASSES, WIDTH, IMAGES = 3, 6, 8


class Net(nn.Module):
    feature_dim = WIDTH

    def __init__(self, head: str = "linear") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, WIDTH), nn.Tanh())
        self.head = make_head(head, WIDTH, CLASSES)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def images(seed: int) -> Tensor:
    return torch.randn(IMAGES, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(views: int = 0, partner: bool = False) -> Batch:
    targets = torch.tensor([0, 1, 0, 2, 1, 0, 0, 1])
    second = Batch(images(50), targets.flip(0), torch.arange(IMAGES) + 100, (images(51),)) if partner else None
    return Batch(images(1), targets, torch.arange(IMAGES), tuple(images(2 + view) for view in range(views)), second)


def facts(model: nn.Module, epoch: int = 0, epochs: int = 4) -> EpochFacts:
    def features() -> tuple[Tensor, Tensor]:
        data = batch()
        with torch.no_grad():
            inputs = data.inputs.to(next(model.parameters()).dtype)
            return model.features(inputs).float(), data.targets  # type: ignore[operator]

    return EpochFacts(epoch, epochs, model, features)


def build(name: str, loss: str = "ce", **options: Any) -> Objective:
    return OBJECTIVES[name](build_loss(loss, COUNTS), **options).double()


def ce(logits: Tensor, target: int) -> Tensor:
    return -(logits[target] - logits.exp().sum().log())


def gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(model.parameters(), found, strict=True)
    ]


def assert_same_loss(objective: Objective, model: nn.Module, data: Batch, by_hand: Tensor) -> None:
    """Value and gradients."""
    losses = objective(model, data)
    assert losses.per_sample.shape == (IMAGES,)
    assert float(objective.normaliser(data)) == pytest.approx(float(losses.normaliser))
    mine = losses.mean()
    assert mine.dtype == torch.float64
    torch.testing.assert_close(mine, by_hand, rtol=1e-10, atol=1e-12)
    for one, two in zip(gradients(mine, model), gradients(by_hand, model), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


# Classify.


def test_classify_keeps_float64() -> None:
    model, data = Net().double(), batch()
    by_hand = sum(ce(row, int(y)) for row, y in zip(model(data.inputs), data.targets, strict=True)) / IMAGES
    assert_same_loss(build("classify"), model, data, by_hand)  # type: ignore[arg-type]


def test_reclassify_gives_the_losses_of_kept_features_through_the_head_as_it_is_now() -> None:
    model, data = Net().double(), batch()
    objective = build("classify")
    objective.keep_features = True
    objective(model, data)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(0.5)
        for parameter in model.body.parameters():
            parameter.zero_()  # not seen: the features are those of the pass
    subset = torch.tensor([3, 0])
    kept = Net().double().features(data.inputs)
    wanted = torch.stack([ce(model.head(kept[i]), int(data.targets[i])) for i in subset])
    torch.testing.assert_close(objective.reclassify(model, data, subset), wanted)


# Mixup.


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixup_is_the_mixture_of_two_losses(kind: str) -> None:
    """lam CE(y) + (1 - lam) CE(y'), the images mixed with the same lam (by the area that is left for CutMix)."""
    model, data = Net().double(), batch()
    objective = build("mixup", kind=kind, alpha=0.7)
    torch.manual_seed(0)
    mixed = objective.prepare(data)
    shares = mixed.targets
    torch.testing.assert_close(shares.sum(1), torch.ones(IMAGES))
    torch.manual_seed(0)
    torch.randint(0, 2**62, ())  # of lambda
    other = torch.randperm(IMAGES)
    two = next(i for i in range(IMAGES) if data.targets[i] != data.targets[other[i]])
    lam = float(shares[two, data.targets[two]])
    assert 0 < lam < 1
    if kind == "mixup":
        torch.testing.assert_close(mixed.inputs, lam * data.inputs + (1 - lam) * data.inputs[other])
    else:
        own, foreign = mixed.inputs == data.inputs, mixed.inputs == data.inputs[other]
        assert bool((own | foreign).all())
        assert float(own.double().mean()) >= lam - 1e-6
    logits = model(mixed.inputs)
    by_hand = sum(
        lam * ce(logits[i], int(data.targets[i])) + (1 - lam) * ce(logits[i], int(data.targets[other[i]]))
        for i in range(IMAGES)
    )
    # Labels are float32, as the data's.
    torch.testing.assert_close(objective(model, mixed).mean(), by_hand / IMAGES, rtol=1e-6, atol=1e-7)  # type: ignore


def test_mixing_has_its_limits_said() -> None:
    with pytest.raises(InputError, match="it must be mixup or cutmix"):
        build("mixup", kind="mosaic")
    with pytest.raises(InputError, match="above 0"):
        build("mixup", alpha=0.0)


# GLMC.


def glmc(model: nn.Module, **options: Any) -> Objective:
    return build("glmc", class_counts=COUNTS, model=model, **options)


def test_glmc_mixes_globally_and_locally_with_one_lambda() -> None:
    model, data = Net("glmc").double(), batch(views=1, partner=True)
    assert data.partner is not None
    objective = glmc(model)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = objective.prepare(data)
        partner_targets = data.partner.targets
        two = next(i for i in range(IMAGES) if data.targets[i] != partner_targets[i])
        lam = float(mixed.targets[two, data.targets[two]])
        labels = lam * F.one_hot(data.targets, CLASSES) + (1 - lam) * F.one_hot(partner_targets, CLASSES)
        torch.testing.assert_close(mixed.targets, labels, rtol=0, atol=1e-6)
        blend = lam * data.inputs + (1 - lam) * data.partner.inputs
        torch.testing.assert_close(mixed.inputs, blend, rtol=0, atol=1e-6)
        own, foreign = mixed.views[0] == data.views[0], mixed.views[0] == data.partner.views[0]
        assert bool((own | foreign).all())
        # The box has sides of ceil(4 sqrt(1 - lam)) of 4 pixels, half of that (rounded down) on either side.
        side = math.ceil(4 * math.sqrt(1 - lam)) // 2
        assert int(foreign[0, 0].sum()) <= (2 * side) ** 2
        assert mixed.partner is None
    assert torch.equal(data.inputs, images(1))  # the batch itself stays as it was


@pytest.mark.parametrize(("epoch", "ascent"), [(0, False), (1, False), (3, False), (2, True)])
def test_glmc_equals_its_formula(epoch: int, ascent: bool) -> None:
    model = Net("glmc").double()
    objective = glmc(model, consistency=2.5, label_power=1.2)
    objective.begin_epoch(facts(model, epoch, 4))
    torch.manual_seed(1)
    data = objective.prepare(batch(views=1, partner=True))
    data = data._replace(targets=data.targets.double())
    objective.ascent = ascent
    head: Any = model.head
    inverse = [count**-1.2 for count in COUNTS]
    weight = [CLASSES * value / sum(inverse) for value in inverse]
    share = 1 - (epoch / 4) ** 2
    total = torch.zeros((), dtype=torch.float64)
    for i in range(IMAGES):
        h_g, h_l = (model.features(x[i : i + 1])[0] for x in (data.inputs, data.views[0]))
        for h in (h_g, h_l):
            for c in range(CLASSES):
                y = data.targets[i, c]
                total = total + share * y * ce(head.fc(h), c)
                total = total + (1 - share) * y * weight[c] * ce(head.fc_cb(h), c)
        q_g, q_l = head.projection(h_g), head.projection(h_l)
        p_g, p_l = head.prediction(q_g), head.prediction(q_l)
        agreement = sum((p * q.detach()).sum() / (p.norm() * q.detach().norm()) for p, q in ((p_g, q_l), (p_l, q_g)))
        if not ascent:
            total = total - 2.5 * agreement
    assert_same_loss(objective, model, data, total / IMAGES)
    torch.testing.assert_close(objective(model, data).logits, head.fc_cb(model.features(data.inputs)))


def test_glmc_needs_its_head_view_and_partner() -> None:
    model = Net("glmc").double()
    with pytest.raises(InputError, match="head = 'glmc'"):
        glmc(Net())
    for data in (batch(views=1), batch(partner=True)):
        with pytest.raises(InputError, match="a further view and a partner"):
            glmc(model).prepare(data)
    with pytest.raises(InputError, match="alpha is 0"):
        glmc(model, alpha=0.0)
    with pytest.raises(InputError, match="must not be negative"):
        glmc(model, consistency=-1.0)


# DRO-LT.


def dro(model: nn.Module, **options: Any) -> Any:
    return build("dro-lt", class_counts=COUNTS, model=model, **options)


@pytest.mark.parametrize("rows", [3, 8192])
def test_dro_lt_centroids_are_class_means(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saddlescape.training.objectives.dro_lt._ROWS", rows)  # in several parts, and in one
    model = Net().double()
    objective = dro(model)
    objective.begin_epoch(facts(model))
    data = batch()
    features = model.features(data.inputs)
    for c in range(CLASSES):
        torch.testing.assert_close(
            objective.centroids[c], features[data.targets == c].mean(0).detach(), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_dro_lt_is_the_class_loss_and_the_robust_one(weighted: bool) -> None:
    """The robust term by loops: each present class's mean of -log p, normalised over the batch for its centroid."""
    model, data = Net().double(), batch()
    objective = dro(model, temperature=0.7, robust_weight=0.4)
    objective.begin_epoch(facts(model))
    weight = torch.tensor([1.0, 1 / 3, 1 / 30], dtype=torch.float64)
    if weighted:
        objective.loss.set_weight(weight)
    with torch.no_grad():
        objective.robust.eps.copy_(torch.tensor([0.5, 1.0, 2.0]))
    h, targets = model.features(data.inputs), data.targets.tolist()
    logits = model.head(h)
    factors = [float(weight[y]) if weighted else 1.0 for y in targets]
    plain = sum(f * ce(logits[i], targets[i]) for i, f in enumerate(factors)) / sum(factors)
    robust = torch.zeros((), dtype=torch.float64)
    for c in sorted(set(targets)):
        u = [
            -((objective.centroids[c] - h[i]).norm() + (2 * objective.robust.eps[c] if targets[i] == c else 0)) / 0.7
            for i in range(IMAGES)
        ]
        members = [i for i in range(IMAGES) if targets[i] == c]
        normal = torch.stack(u).exp().sum().log()
        robust = robust + sum(normal - u[i] for i in members) / len(members)
    by_hand = plain + 0.4 * robust / len(set(targets))
    assert_same_loss(objective, model, data, by_hand)
    mine = torch.autograd.grad(objective(model, data).mean(), objective.robust.eps, retain_graph=True)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(by_hand, objective.robust.eps)[0])
    assert mine.abs().min() > 0


# CC-SAM's second stage.


@pytest.mark.parametrize("epoch", [0, 3])
def test_adversarial_features_equal_the_loop_over_classes(epoch: int) -> None:
    """As the published loop: for each class a gradient of its mean loss over all features, one move, one pass."""
    model, data = Net().double(), batch()
    for parameter in model.body.parameters():
        parameter.requires_grad_(False)
    objective = build("adversarial-features", class_counts=COUNTS, cap=0.75, strength=1.3)
    objective.begin_epoch(facts(model, epoch, 4))
    share = (0.25, None, None, 0.75)[epoch]
    assert share is not None
    features = model.features(data.inputs).requires_grad_()
    plain = torch.stack([ce(model.head(features[i]), int(y)) for i, y in enumerate(data.targets)])
    hard = []
    for c in range(CLASSES):
        v = math.log(max(COUNTS) / COUNTS[c] + 0.01) / 2
        members = (data.targets == c).nonzero().flatten()
        gradient = torch.autograd.grad(plain[members].mean(), features, retain_graph=True)[0]
        moved = features.detach() + 1.3 * v * gradient / gradient.norm()
        hard += [v * ce(model.head(moved[i]), c) for i in members]
    by_hand = share * torch.stack(hard).mean() + (1 - share) * plain.mean()
    losses = objective(model, data)
    torch.testing.assert_close(losses.mean(), by_hand, rtol=1e-10, atol=1e-12)
    head = list(model.head.parameters())
    for one, two in zip(torch.autograd.grad(losses.mean(), head), torch.autograd.grad(by_hand, head), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-12)


def test_adversarial_features_of_a_trained_backbone_and_of_a_flat_loss() -> None:
    model, data = Net().double(), batch()
    objective = build("adversarial-features", class_counts=COUNTS)
    objective.begin_epoch(facts(model, 3, 4))
    value = objective(model, data).mean()
    assert all(gradient.abs().sum() > 0 for gradient in gradients(value, model))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()  # no gradient reaches the features: nothing to climb
    assert torch.isfinite(objective(model, data).per_sample).all()
    for options in ({"cap": 1.5}, {"strength": -1.0}, {"divisor": 0.0}):
        with pytest.raises(InputError, match="adversarial-features"):
            build("adversarial-features", class_counts=COUNTS, **options)


# Contrastive.


def contrastive(model: nn.Module, loss: str = "la", **options: Any) -> Any:
    return build("contrastive", loss, class_counts=COUNTS, model=model, **options)


def projected(model: Any, data: Batch) -> tuple[Tensor, list[Tensor]]:
    """Features of the main view, and points of each view, all projected as one batch."""
    images = (data.inputs, *data.views)
    features = torch.cat([model.features(x) for x in images])
    points = model.head.projection(features)
    points = points / points.norm(dim=1, keepdim=True)
    return features[:IMAGES], list(points.split(IMAGES))


@pytest.mark.parametrize("views", [0, 2])
def test_bcl_is_the_class_loss_and_the_balanced_contrastive_one(views: int) -> None:
    model, data = Net("bcl").double(), batch(views)
    objective = contrastive(model, kind="bcl", weight=0.6, classify_weight=2.0, temperature=0.2)
    features, points = projected(model, data)
    prior = torch.tensor(COUNTS, dtype=torch.float64).div(sum(COUNTS)).log()
    logits = model.head.linear(features) + prior
    plain = sum(ce(logits[i], int(y)) for i, y in enumerate(data.targets)) / IMAGES
    head: Any = model.head
    centres = head.prototype(head.linear.weight)
    everything = [*torch.cat(points[1:] if views else points), *(centres / centres.norm(dim=1, keepdim=True))]
    labels = [*(data.targets.tolist() * max(views, 1)), *range(CLASSES)]
    contrast = torch.zeros((), dtype=torch.float64)
    anchors = len(labels) - CLASSES
    for i in range(anchors):
        below = torch.zeros((), dtype=torch.float64)
        for c in range(CLASSES):
            members = [k for k in range(len(labels)) if labels[k] == c and k != i]
            below = below + sum((everything[i] @ everything[k] / 0.2).exp() for k in members) / len(members)
        positives = [k for k in range(len(labels)) if labels[k] == labels[i] and k != i]
        terms = [everything[i] @ everything[k] / 0.2 - below.log() for k in positives]
        contrast = contrast - sum(terms) / len(positives)
    assert_same_loss(objective, model, data, 2.0 * plain + 0.6 * contrast / anchors)  # type: ignore[arg-type]


@pytest.mark.parametrize("views", [0, 2])
def test_proco_is_the_class_loss_and_the_mean_over_views(views: int) -> None:
    model, data = Net("contrastive").double(), batch(views)
    objective = contrastive(model, weight=0.5)
    losses = objective(model, objective.prepare(data))
    features, points = projected(model, data)
    alone = ProCoLoss(COUNTS, 128, 0.1).double()
    terms = [alone.per_sample(z, data.targets) for z in (points[1:] if views else points)]
    prior = torch.tensor(COUNTS, dtype=torch.float64).div(sum(COUNTS)).log()
    plain = F.cross_entropy(model.head(features) + prior, data.targets)
    by_hand = plain + 0.5 * torch.stack(terms).mean()
    torch.testing.assert_close(losses.mean(), by_hand, rtol=1e-9, atol=1e-10)
    for one, two in zip(gradients(losses.mean(), model), gradients(by_hand, model), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-10)


def test_the_contrastive_mean_is_added_whatever_the_class_weights() -> None:
    model, data = Net("bcl").double(), batch(2)
    plain, both = contrastive(model, "ce", kind="bcl", weight=0.0), contrastive(model, "ce", kind="bcl")
    difference = both(model, data).mean() - plain(model, data).mean()
    for objective in (plain, both):
        objective.loss.set_weight(torch.tensor([0.1, 0.9, 2.0], dtype=torch.float64))
    torch.testing.assert_close(both(model, data).mean() - plain(model, data).mean(), difference)


def test_proco_observes_each_whole_batch_once() -> None:
    model, objective = Net("contrastive").double(), None
    model.train()
    objective = contrastive(model)
    first, second = batch(2), batch(2)._replace(indices=torch.arange(IMAGES))
    prepared = [objective.prepare(first), objective.prepare(second)]
    part = prepared[0]._replace(indices=torch.tensor([0, 1]))  # a part of the batch, as split steps cut one
    part = Batch(part.inputs[:2], part.targets[:2], part.indices, tuple(view[:2] for view in part.views))
    objective(model, part)
    assert float(objective.contrast.count.sum()) == 0
    for passes in range(1, 3):
        for number, data in enumerate(prepared):
            objective(model, data)
            seen = 2 * IMAGES * (number + 1 if passes == 1 else 2)  # two views of each image
            assert float(objective.contrast.count.sum()) == seen
    assert objective._unseen == []
    objective.begin_epoch(facts(model, 1))
    assert float(objective.contrast.count.sum()) == 0
    assert float(objective.contrast.last_count.sum()) == 4 * IMAGES


def test_contrast_without_weight_costs_nothing() -> None:
    model, data = Net().double(), batch(2)
    seen: list[int] = []
    model.body.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    losses = contrastive(model, "ce", weight=0.0)(model, data)
    assert seen == [IMAGES]
    torch.testing.assert_close(losses.per_sample, Classify(build_loss("ce", COUNTS))(model, data).per_sample)


def test_contrastive_reclassifies_with_the_contrast_as_it_was() -> None:
    model, data = Net("contrastive").double(), batch(2)
    objective = contrastive(model, classify_weight=1.5)
    objective.keep_features = True
    losses = objective(model, objective.prepare(data))
    subset = torch.tensor([5, 2])
    torch.testing.assert_close(objective.reclassify(model, data, subset), losses.per_sample[subset])


def test_a_part_of_one_image_is_not_contrasted() -> None:
    model, data = Net("contrastive").double(), batch()
    one = Batch(data.inputs[:1], data.targets[:1], data.indices[:1])
    plain = contrastive(model, weight=0.0)(model, one)
    torch.testing.assert_close(contrastive(model)(model, one).per_sample, plain.per_sample)


def test_contrast_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="it must be one of proco, bcl"):
        contrastive(Net("bcl"), kind="simclr")
    with pytest.raises(InputError, match="a head that projects"):
        contrastive(Net())
    with pytest.raises(InputError, match="head = 'bcl'"):
        contrastive(Net("contrastive"), kind="bcl")
    with pytest.raises(InputError, match="must not be negative"):
        contrastive(Net("bcl"), weight=-1.0)


# Checkpoints.


@pytest.mark.parametrize(
    ("name", "head", "views"),
    [("glmc", "glmc", 1), ("dro-lt", "linear", 0), ("contrastive", "contrastive", 2), ("contrastive", "bcl", 2)],
)
def test_the_state_is_all_that_is_needed_in_the_middle_of_an_epoch(name: str, head: str, views: int) -> None:
    """An objective rebuilt from its options and given the state goes on with the same bits, without begin_epoch."""
    model = Net(head)
    options: dict[str, Any] = {"class_counts": COUNTS, "model": model}
    if head == "bcl":
        options["kind"] = "bcl"

    def make() -> Objective:
        return OBJECTIVES[name](build_loss("ce", COUNTS), **options)

    def narrow(data: Batch) -> Batch:
        partner = None if data.partner is None else narrow(data.partner)
        return data._replace(
            inputs=data.inputs.float(), views=tuple(view.float() for view in data.views), partner=partner
        )

    whole, data = make(), narrow(batch(views, partner=name == "glmc"))
    for epoch in range(2):
        whole.begin_epoch(facts(model, epoch))
        whole(model, whole.prepare(data))
    if name == "dro-lt":
        with torch.no_grad():
            whole.robust.eps.add_(torch.rand(CLASSES))  # type: ignore[operator, union-attr]
    again = make()
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    torch.manual_seed(9)
    one = whole(model, whole.prepare(data)).per_sample
    torch.manual_seed(9)
    assert torch.equal(one, again(model, again.prepare(data)).per_sample)
