"""Exports the runs of a sweep to files and to the tools that track experiments."""

from noisegen.export.exporter import FORMATS, export
from noisegen.export.tracked import TrackedRun

__all__ = ["FORMATS", "TrackedRun", "export"]
