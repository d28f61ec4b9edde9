"""Sends runs to an MLflow tracking store; the only package that imports mlflow."""
