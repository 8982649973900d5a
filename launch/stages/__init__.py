"""Running it: an experiment's stages in a run folder, resumed, reused, over seeds."""
