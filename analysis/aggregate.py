"""The import path of `summarize` in scripts written for version 0.1."""

from analysis.stats.aggregate import summarize

__all__ = ["summarize"]
