"""Sweeps: many runs of one experiment, over W&B or on this machine."""
