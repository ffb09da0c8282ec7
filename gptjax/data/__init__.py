"""From text to ids to batches: pure numpy, no JAX.

`corpus` finds the text (`datasets` downloads it, `synthetic` and `markov` make it, `token_files`
reads nanoGPT's, `shards` ours), `texts` reads it in pieces, `tokenizer` turns it into ids (`bpe`'s,
if they are not characters), `splits` cuts them into train and val, `batches` says which windows a
batch holds. `preparation` makes shards of documents.
Imports `config` and `system`.
"""
