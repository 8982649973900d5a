"""Callbacks that every run gets: resume point, random state, epoch metrics, metrics file, progress in a log."""

from __future__ import annotations

from .epoch_metrics import EpochMetrics
from .metrics_file import MetricsFile
from .progress import LineProgress
from .progress_file import ProgressFile
from .random_state import RandomState
from .resume_point import OutOfTime, ResumePoint

__all__ = ["EpochMetrics", "LineProgress", "MetricsFile", "OutOfTime", "ProgressFile", "RandomState", "ResumePoint"]
