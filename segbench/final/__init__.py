"""CHOOSING AND CONFIRMING: finalists, retraining, the test split, what a model costs, export.

May import core, data, models and training; not tune, which runs its lists like any other.
"""
