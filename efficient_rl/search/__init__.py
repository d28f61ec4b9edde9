"""Search: Optuna proposes runs, launchers execute them, their metrics guide the next."""
