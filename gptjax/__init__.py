"""gptjax: train small GPTs with JAX on a laptop or a GPU, and know why a run came out as it did."""

__version__ = "0.1.0"
