"""Saying what happened: reads records from disk, can be made again."""
