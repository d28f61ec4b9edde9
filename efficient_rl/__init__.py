"""Which cheap way of training a language model with GRPO gives how much accuracy, and how sure that is."""
