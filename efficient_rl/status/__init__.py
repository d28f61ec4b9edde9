"""Reports the states of a sweep's runs."""
