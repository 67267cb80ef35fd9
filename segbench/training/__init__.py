"""THE ONE SHARED TRAINING FUNCTION: one configuration in, metrics once per epoch out.

May import core, storage, models and data; no Ray, Optuna, MLflow, pandas or pydantic, so that a worker needs none.
"""
