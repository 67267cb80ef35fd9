"""LEDGERS -> TABLES AND CLAIMS: finalists, leaderboard, Parquet, statistics, confidence, audit, conclusion.

May import core to final, except tune; neither torch nor Ray is imported, so that reading a sweep takes a second.
The only imports of pandas.
"""
