"""The GPT and its text: Flax modules and pure functions, no files and no devices.

`gpt` is the model, of `attention` and `layers`; `gradients` are written by hand where autodiff's
are slower; `generate` samples; `interop` has nanoGPT's names of the weights. Imports `config`;
`data` and `system` it may, and need not.
"""
