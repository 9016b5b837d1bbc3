"""What a word like "ldam+drw+sam" means: a list of stages, every number filled in."""
