"""Trains, evaluates and runs one model, anywhere. Knows nothing of Ray, Optuna or MLflow."""
