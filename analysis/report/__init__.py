"""The report of a sweep: `python -m analysis.report`."""
