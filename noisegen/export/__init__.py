"""Exports the runs of a sweep to files and to the tools that track experiments."""

from noisegen.export.exporter import FORMATS, export

__all__ = ["FORMATS", "export"]
