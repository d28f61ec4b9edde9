"""Composes, types and checks the configuration of a run."""
