"""Why runs differ: reads runs, compares and draws them; writes none.

`variant` makes a run's updates on another device or in another precision, `drift` says how far they
part; `series` is what a log tells, `pictures` draws it, `page` is a report for a browser;
`side_by_side` shows texts of several runs. Imports `run` and what is below.
"""
