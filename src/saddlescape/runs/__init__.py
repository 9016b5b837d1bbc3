"""Run folders: what is in them, how a run is executed and resumed, grids of runs."""
