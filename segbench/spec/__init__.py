"""WHAT WAS ASKED: the sweep file, its search space, and the plan that follows from it.

May import core; neither torch, Ray, Optuna nor MLflow. The only imports of pydantic.
"""
