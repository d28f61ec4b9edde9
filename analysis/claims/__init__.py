"""Published claims, evaluated on finished runs: `python -m analysis.claims`."""
