"""Empty caches: what generation begins with."""

import jax
import tiny

from gptjax.model import caches


def shapes(config):
    return jax.tree.map(lambda leaf: leaf.shape, caches.empty_caches(config, 2))


def test_nanogpts_model_keeps_keys_and_values_alone():
    # Two sequences, three heads, seven tokens, a head five wide.
    found = shapes(tiny.model_config())
    layer = caches.LayerCache(((2, 3, 7, 5), (2, 3, 7, 5)), None, None)
    assert found == caches.Caches([layer, layer], None)


def test_what_is_shifted_and_the_tokens_of_followers_are_kept_as_well():
    found = shapes(tiny.model_config(token_shift=True, n_embd=18, followers=4))
    layer = caches.LayerCache(((2, 3, 7, 6), (2, 3, 7, 6)), (2, 8, 9), (2, 8, 9))
    assert found == caches.Caches([layer, layer], (2, 7 + 3))
