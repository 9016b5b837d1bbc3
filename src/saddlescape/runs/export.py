"""A trained run as one file that predicts without saddlescape: raw pixels in, probabilities out, names inside."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.disk import whole
from saddlescape.errors import InputError, MissingExtraError
from saddlescape.models.lora import merge_lora
from saddlescape.runs.opened import Opened

FORMATS = {".pt2": "torch.export", ".onnx": "ONNX"}
TOLERANCE = 1e-4


class Deployed(nn.Module):
    """uint8 pixels [N, C, S, S], or features [N, d] -> probabilities [N, num_classes], normalised inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self.model = merge_lora(copy.deepcopy(opened.model))
        self.scale = opened.logit_scale
        self.unit, self.features = opened.preprocess.unit, opened.preprocess.features
        self.register_buffer("mean", torch.tensor(opened.preprocess.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(opened.preprocess.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = images[:, :, None, None] if self.features else images
        logits = self.model((images.float() / self.unit - self.mean) / self.std)
        return (self.scale * logits.float()).softmax(dim=1)


def export(opened: Opened, path: Path) -> float:
    """Write ``path`` (.pt2 or .onnx), load it again and hold its answers against the model's.

    Returns the largest difference of a probability over batches of 1 and 7 images.

    Raises:
        InputError: an unknown ending, or the written file disagrees with the model (it is removed then).
        MissingExtraError: ONNX packages are not installed.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: unknown ending; use {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    deployed = Deployed(opened).eval()
    size, channels = opened.preprocess.image_size, opened.preprocess.channels
    generator = torch.Generator().manual_seed(0)
    trials = [torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator) for n in (1, 7)]
    if opened.preprocess.features:
        trials = [torch.randn(n, channels, generator=generator) for n in (1, 7)]
    with whole(path, "make room or choose another --out") as temporary:
        if path.suffix == ".pt2":
            answers = _torch_export(deployed, trials, temporary, description(opened))
        else:
            answers = _onnx(deployed, trials, temporary, description(opened))
        with torch.no_grad():
            wanted = [deployed(trial) for trial in trials]
        gap = max(float((a - w).abs().max()) for a, w in zip(answers, wanted, strict=True))
        if not gap <= TOLERANCE:
            raise InputError(
                f"{path}: the exported model differs from the run by {gap:.2g}; nothing was kept, report it"
            )
    return gap


def input_of(opened: Opened) -> str:
    """What an exported model takes, in words."""
    size, channels = opened.preprocess.image_size, opened.preprocess.channels
    if opened.preprocess.features:
        return f"float32 [N, {channels}]"
    return f"uint8 [N, {channels}, {size}, {size}], 0..255"


def description(opened: Opened) -> dict[str, Any]:
    """What somebody who has only the file must know."""
    preprocess = opened.preprocess
    images = {
        "resize": f"shorter side to {preprocess.resize_to}, centre cut"
        if preprocess.resize_to
        else "to the input size",
        "background": preprocess.background,
        "more_than_8_bits": f"0..{preprocess.white_level or 65535:g} to 0..255",
    }
    return {
        "classes": opened.classes,
        "input": input_of(opened),
        **({} if preprocess.features else images),
        "output": "class probabilities [N, num_classes], in the order of classes",
        "method": opened.config.method,
        "model": opened.config.model,
        "made_with": f"saddlescape {opened.meta.get('saddlescape', '')}",
    }


def _torch_export(model: nn.Module, trials: list[Tensor], path: Path, about: dict[str, Any]) -> list[Tensor]:
    batch = torch.export.Dim("batch", min=1)
    # Two images: a batch of one would be taken for a constant.
    example = trials[1][:2]
    program = torch.export.export(model, (example,), dynamic_shapes={"images": {0: batch}})
    buffer = io.BytesIO()  # torch's own writer of files ends the process on a full disk
    torch.export.save(program, buffer, extra_files={"saddlescape.json": json.dumps(about)})
    path.write_bytes(buffer.getvalue())
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        return [loaded(trial) for trial in trials]


def _onnx(model: nn.Module, trials: list[Tensor], path: Path, about: dict[str, Any]) -> list[Tensor]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it and says so only deep inside
    except ImportError as error:
        raise MissingExtraError("export to ONNX", "onnx", str(error.name)) from error
    program = torch.onnx.export(
        model, (trials[1][:2],), input_names=["images"], output_names=["probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}}, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    for key, value in about.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    onnx.save(proto, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(None, {"images": trial.numpy()})[0]) for trial in trials]
