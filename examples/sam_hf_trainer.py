"""SAM in the Hugging Face ``Trainer``: a subclass of 30 lines that keeps everything else of it.

Run it: ``python examples/sam_hf_trainer.py``. It needs ``transformers`` and ``accelerate``; the model is tiny and made
on the spot, nothing is downloaded.

The Trainer calls ``optimizer.step()`` without a closure after the last micro-batch of a step. So the first pass is its
own; the subclass then climbs, runs the same micro-batches again, and leaves the rest (clipping by ``max_grad_norm``,
the step itself, fp16's scaler, the schedule) to the Trainer. The loss it logs is the one at w.
"""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from saddlescape.optim import SAM


class SAMTrainer(Trainer):
    """``Trainer`` whose optimiser is wrapped in SAM. Works with gradient accumulation, bf16 and fp16."""

    def __init__(self, *args: Any, rho: float = 0.05, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rho = rho
        self.sam: SAM | None = None
        self._micro_batches: list[tuple[Any, ...]] = []

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.sam is None:
            self.sam = SAM(super().create_optimizer(*args, **kwargs), rho=self.rho, model=self.model)
            self.optimizer = self.sam
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any) -> Tensor:
        loss = super().training_step(model, dict(inputs), *args)
        self._micro_batches.append((inputs, *args))
        if self.accelerator.sync_gradients:  # the last micro-batch of this step: the gradient at w is complete
            assert self.sam is not None
            try:
                if self.sam.ascend(scaler=self.accelerator.scaler):
                    model.zero_grad()
                    for number, (again, *rest) in enumerate(self._micro_batches):
                        last = number == len(self._micro_batches) - 1
                        with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                            super().training_step(model, dict(again), *rest)
            except BaseException:
                self.sam.restore()
                raise
            finally:
                self._micro_batches = []
        return loss


class TinyClassifier(nn.Module):
    """The least a Trainer needs: keyword inputs, a dict with the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(inputs)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def make_data(n: int = 96) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (n,), generator=generator)
    inputs = torch.randn(3, 8, generator=generator)[labels] * 2 + torch.randn(n, 8, generator=generator)
    return [{"inputs": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]


def fit(model: nn.Module, folder: str, rho: float = 0.05, **options: Any) -> SAMTrainer:
    defaults: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": 6,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.01,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    trainer = SAMTrainer(
        model=model, args=TrainingArguments(**{**defaults, **options}), train_dataset=make_data(), rho=rho
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for steps in (1, 3):
            trainer = fit(TinyClassifier(), folder, gradient_accumulation_steps=steps)
            loss = trainer.state.log_history[-1]["train_loss"]
            print(f"{steps} micro-batches: {trainer.state.global_step} steps, loss {loss:.4f}")
