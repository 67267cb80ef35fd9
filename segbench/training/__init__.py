"""The one shared training function: no ray, optuna or mlflow."""
