"""The examples run, and train exactly as the same loop written by hand."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saddlescape.optim import SAM

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_torch() -> None:
    example = load("sam_plain_torch")
    for form in (example.closure_form, example.mixed_precision, example.micro_batches, example.by_hand):
        first, last = form(epochs=1), form(epochs=2)
        assert last < first < 0.6  # from log 3 = 1.1


def by_hand(net: nn.Module, batches: list, epochs: int, rho: float = 0.05) -> tuple[SAM, float]:
    optimizer = SAM(torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), rho=rho, model=net)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
    loss = torch.zeros(())
    for _ in range(epochs):
        for x, y in batches:

            def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(x), y)
                loss.backward()
                return loss

            loss = optimizer.step(closure)
        scheduler.step()
    return optimizer, loss.item()


@pytest.mark.parametrize("kind", ["Automatic", "Manual", "Manual with a scaler"])
def test_lightning(kind: str) -> None:
    pytest.importorskip("lightning", reason="the example is for users of lightning, which is no dependency of ours")
    example = load("sam_lightning")
    module = getattr(example, kind.split()[0])()
    options = {}
    if "scaler" in kind:
        from lightning.pytorch.plugins import MixedPrecision

        class Scaled(MixedPrecision):
            """Lightning's fp16 precision without its autocast: float32 numbers through a scaler."""

            def autocast_context_manager(self) -> torch.autocast:
                return torch.autocast("cpu", enabled=False)

        options["plugins"] = Scaled("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lightning's own, about workers and loggers
        trainer = example.fit(module, epochs=2, **options)
    reference = example.Automatic()
    _, loss = by_hand(reference.net, list(example.make_loader()), epochs=2)
    assert trainer.global_step == 6  # one a batch
    assert trainer.callback_metrics["loss"].item() == pytest.approx(loss, rel=1e-5)  # of the first pass
    for ours, other in zip(module.net.state_dict().values(), reference.net.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_lightning_automatic_fp16_is_one_clear_line() -> None:
    pytest.importorskip("lightning", reason="the example is for users of lightning, which is no dependency of ours")
    from lightning.pytorch.plugins import MixedPrecision

    from saddlescape.errors import InputError

    example = load("sam_lightning")
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with warnings.catch_warnings(), pytest.raises(InputError, match="ascend"):
        warnings.simplefilter("ignore")
        example.fit(example.Automatic(), epochs=1, plugins=plugin)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("scaled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hugging_face_trainer(accumulate: int, scaled: bool, tmp_path: Path) -> None:
    pytest.importorskip(
        "transformers", reason="the example is for users of transformers, which is no dependency of ours"
    )
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    example = load("sam_hf_trainer")
    model = example.TinyClassifier()
    reference = example.TinyClassifier()
    options = {"gradient_accumulation_steps": accumulate, "max_steps": 4, "lr_scheduler_type": "constant"}
    trainer = example.SAMTrainer(
        model=model,
        args=example.TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=16,
            learning_rate=0.1,
            optim="sgd",
            weight_decay=0.0,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            max_grad_norm=0.05,
            train_sampling_strategy="sequential",
            **options,
        ),
        train_dataset=example.make_data(),
        rho=0.1,
    )
    if scaled:
        # What accelerate does under fp16, which it does not offer on the CPU: a scaler, and unscaling before clipping.
        scaler = trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        trainer.accelerator.unscale_gradients = lambda *_: scaler.unscale_(trainer.sam)
    trainer.train()
    assert trainer.state.global_step == 4

    optimizer = SAM(torch.optim.SGD(reference.parameters(), lr=0.1), rho=0.1, clip_grad_norm=0.05)
    data = example.make_data()
    parts = [data[i : i + 16] for i in range(0, len(data), 16)]
    batches = [{key: torch.stack([row[key] for row in part]) for key in part[0]} for part in parts]
    for step in range(4):
        micro = [batches[(step * accumulate + k) % len(batches)] for k in range(accumulate)]

        def closure(micro: list = micro) -> torch.Tensor:
            optimizer.zero_grad()
            total = torch.zeros(())
            for part in micro:
                loss = reference(**part)["loss"] / accumulate
                loss.backward()
                total = total + loss.detach()
            return total

        optimizer.step(closure)
    for ours, other in zip(model.state_dict().values(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
