"""Reads sweeps, runs and searches, from folders or from the tracking store."""
