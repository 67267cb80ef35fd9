"""THE MAIN JOB: run.py puts the parts together, stages.py reads like the picture in docs/design.md.

May import every room but cli; imported by cli and by the package's public names.
"""
