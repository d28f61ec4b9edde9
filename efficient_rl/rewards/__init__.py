"""Reward functions and the checkers they trust."""
