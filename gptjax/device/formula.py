"""FLOPs and parameters of a GPT by formula: for whoever has no program to count them in."""

from __future__ import annotations


def formula_flops(
    *, n_layer: int, n_embd: int, block_size: int, n_params: int, n_tokens: int
) -> float:
    """FLOPs of one update on `n_tokens` tokens: (6N + 12·L·H·Q·T) each, forward and backward.

    Source: Chowdhery et al. 2022, PaLM, appendix B; N excludes position embeddings as in nanoGPT.
    """
    attention = 12 * n_layer * n_embd * block_size
    return float((6 * n_params + attention) * n_tokens)


def nanogpt_params(*, n_layer: int, n_embd: int, vocab_size: int, bias: bool) -> int:
    """Parameters of nanoGPT's GPT, position embeddings not counted, the head tied.

    A block has 12·D² weights and two norms, and with biases 9·D + 2·D more.
    """
    block = 12 * n_embd**2 + 2 * n_embd + (11 * n_embd if bias else 0)
    return vocab_size * n_embd + n_layer * block + n_embd * (2 if bias else 1)
