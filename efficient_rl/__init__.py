"""Compares the accuracy and the cost of cheap ways to train a language model with GRPO."""
