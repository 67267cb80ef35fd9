"""FROM ONE MACHINE TO MANY: checking a cluster file, and sweeps on it; thin over Ray's own commands.

May import core to tracking; knows no training.
"""
