"""Which parameters train, and when."""
