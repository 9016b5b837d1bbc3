"""Low-rank matrices beside the attention of a transformer (Hu et al., "LoRA", ICLR 2022), through the package peft."""

from __future__ import annotations

from torch import nn

from saddlescape.errors import InputError, MissingExtraError

# Queries and values, as the networks of transformers, timm (both in one) and others call them.
TARGETS = ("query", "value", "q_proj", "v_proj", "qkv", "q", "v")
ALPHA = 8  # with rank 8 the matrices' product is added as it is


def add_lora(network: nn.Module, rank: int, name: str) -> None:
    """Put matrices of this rank beside the projections of ``network`` (in place); at first they change no output.

    Raises:
        MissingExtraError: peft is not installed.
        InputError: the network has no such projections.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("--tune lora", "lora", error.name or "peft") from error
    found = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in TARGETS
    ]
    if not found:
        raise InputError(
            f"--tune lora: backbone {name!r} has no attention ({', '.join(TARGETS)}); use --tune norm or all"
        )
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=found), network)


def merge_lora(model: nn.Module) -> nn.Module:
    """``model`` with such matrices added to the weights beside them (in place): plain layers, the same outputs."""
    for path, module in list(model.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            module.merge()  # type: ignore[operator]
            model.set_submodule(path, module.get_base_layer())  # type: ignore[operator]
    return model
