"""What is measured of a finished run: spectra, their course over training, SAM's radius, escape, loss surfaces."""
