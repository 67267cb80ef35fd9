"""RUNNING TRIALS ON RAY: Ray's view of the queue and of one trial, and what a cluster has.

May import core, spec, storage and training. The only imports of ray.
"""
