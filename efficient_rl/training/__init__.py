"""The trainer, as short overrides of TRL's GRPOTrainer, and its parts."""
