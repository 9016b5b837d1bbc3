"""Several processes that train one run: how torchrun starts them, and what they exchange."""
