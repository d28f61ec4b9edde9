"""Owns the directory of one run: who works on it, and what it holds."""
