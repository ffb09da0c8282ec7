"""One run: its directory, its start, its compiled functions, what it writes and what it says.

Imports `device` and what is below. The loop itself is on top, in gptjax/train.py.
"""
