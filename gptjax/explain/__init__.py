"""Why runs differ: reads runs and compares them, never trains one.

`variant` makes the same updates on another device or in another precision. Imports `run` and what
is below.
"""
