"""One update of the weights: pure functions from state and batch to state and metrics.

`step` makes it, `optim` and `muon` are the rules it follows; `torch_adamw` has torch's form of
AdamW's state. Imports `model` and what is below.
"""
