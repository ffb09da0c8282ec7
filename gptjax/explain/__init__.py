"""Why runs differ: reads runs, compares and draws them; writes none.

`variant` makes a run's updates on another device or in another precision, `drift` says how far they
part; `series` reads a log, `plots` draws it; `side_by_side` shows texts of several runs.
Imports `run` and what is below.
"""
