"""Ways to start runs: one interface, this machine or a cluster."""
