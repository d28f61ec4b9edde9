"""Starts runs: in this process, on this machine, or on a cluster."""
