"""The one training loop and its parts. Import the parts from their files; this face stays light (no torch)."""
