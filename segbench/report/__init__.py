"""THE PAGE: Vega-Lite specifications, pictures and markup in one HTML file.

May import core to results, and search for the rungs; reads a sweep's folder and can be made again.
"""
