"""Choosing the finalists and confirming them."""
