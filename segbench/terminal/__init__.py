"""WHAT A PERSON READS IN A TERMINAL: progress, estimate, status, tables that fit a screen.

May import core to results; not tracking. The only imports of rich, with sweep's dry run.
"""
