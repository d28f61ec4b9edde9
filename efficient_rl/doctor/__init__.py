"""Finds, before anything is submitted, what would stop or ruin a sweep here."""
