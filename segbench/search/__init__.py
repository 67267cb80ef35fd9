"""WHICH CONFIGURATION NEXT, WHICH TRIAL STOPS: proposals, rungs, the queue that records and decides.

May import core and spec; no Ray, no torch. The only imports of optuna.
"""
