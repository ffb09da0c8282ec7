"""Which devices there are, what fits on them, and what they could do.

Imports `update` and what is below: an update's FLOPs and memory are counted here.
"""
