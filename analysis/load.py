"""The import path of `load_sweep` in scripts written for version 0.1."""

from analysis.data.load import load_sweep

__all__ = ["load_sweep"]
