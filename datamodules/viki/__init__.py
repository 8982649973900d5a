"""VIKI-Bench made anew: tasks for heterogeneous robots, their checker, planner and generator (arXiv 2506.09049)."""
