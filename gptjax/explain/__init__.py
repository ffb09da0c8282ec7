"""Why runs differ: reads runs, compares and draws them; writes none.

`variant` makes a run's updates on another device or in another precision, `drift` says how far they
part; `series` reads a log, `plots` draws it. Imports `run` and what is below.
"""
