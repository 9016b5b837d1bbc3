"""Every file of a run folder as one Struct: written and read through it. Imports no torch."""
