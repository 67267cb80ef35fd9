"""WHAT ALL STAGES HAND ON: errors, seeds, settings, records, paths, addresses, ledgers, failures, versions.

Standard library only, and no other room: a worker, a reader of results and the command line all begin here.
"""
