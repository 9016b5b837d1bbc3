"""SAM in Lightning, automatic and manual optimisation.

Run it: ``python examples/sam_lightning.py``. It needs ``lightning``.

Automatic optimisation works as it is, in fp32 and bf16: Lightning hands SAM a closure. ``training_step`` then runs
twice a batch, so log only where ``is_perturbed`` is False. Two things it cannot do: fp16 (Lightning's scaler runs the
closure itself, once; you get one line that says so), and ``gradient_clip_val`` per step (it clips in both passes,
which leaves SAM's direction as it is; ``SAM(clip_grad_norm=...)`` clips once). For fp16 use manual optimisation.
"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from saddlescape.optim import SAM


def make_loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (96,), generator=generator)
    inputs = torch.randn(3, 8, generator=generator)[labels] * 2 + torch.randn(96, 8, generator=generator)
    return DataLoader(TensorDataset(inputs, labels), batch_size=32)


class Automatic(L.LightningModule):
    """Lightning calls ``optimizer.step(closure)``; nothing to do but to log in the right pass."""

    def __init__(self, rho: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rho = rho
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        if not self.optimizers().is_perturbed:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> dict:
        base = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        optimizer = SAM(base, rho=self.rho, model=self.net)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)}


class Manual(Automatic):
    """You call the optimiser. The same code runs in fp32, bf16 and fp16."""

    def __init__(self, rho: float = 0.05) -> None:
        super().__init__(rho)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        optimizer = self.optimizers()  # Lightning's wrapper: step through it, so that global_step counts
        sam = self.optimizers(use_pl_optimizer=False)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self.net(x), y)
            self.manual_backward(loss)
            return loss

        if scaler is None:
            loss = optimizer.step(closure)
        else:
            loss = closure()
            if sam.ascend(scaler=scaler):
                closure()
            optimizer.step()  # Lightning lets the scaler unscale, step and update
        self.log("loss", loss)
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()


def fit(module: L.LightningModule, epochs: int = 2, **trainer_options: object) -> L.Trainer:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=epochs, enable_model_summary=False, **{**options, **trainer_options})
    trainer.fit(module, make_loader())
    return trainer


if __name__ == "__main__":
    for kind in (Automatic, Manual):
        trainer = fit(kind())
        print(f"{kind.__name__}: {trainer.global_step} steps, loss {trainer.callback_metrics['loss']:.4f}")
