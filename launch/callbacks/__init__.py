"""Callbacks that every run gets: resume point, random state, metrics file, progress in a log."""

from __future__ import annotations

from .metrics_file import MetricsFile
from .progress import LineProgress
from .random_state import RandomState
from .resume_point import OutOfTime, ResumePoint

__all__ = ["LineProgress", "MetricsFile", "OutOfTime", "RandomState", "ResumePoint"]
