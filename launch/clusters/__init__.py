"""Runs on other machines' processors: Ray Train (`--on ray`) and SLURM (`--on slurm`)."""
