"""Search: Optuna proposes runs, the launchers do them, and what they measured decides what is proposed next."""
