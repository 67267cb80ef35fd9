"""Distributed hyperparameter sweeps for semantic segmentation."""

__version__ = "0.1.0"
