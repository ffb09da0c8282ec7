"""How fast: updates and whole processes, alone and in turns with nanoGPT.

Imports `run` and what is below; of all gptjax only this wing starts processes.
"""
