"""From files on disk to what a person reads. Imports no torch."""
