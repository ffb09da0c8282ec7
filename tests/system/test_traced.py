"""What has been traced can be put into another program, once or more often."""

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.system.traced import Traced, shapes, traced

X_N = np.arange(4, dtype=np.float32)


def test_it_computes_what_the_function_does():
    lowered = jax.jit(lambda x, y: (jnp.cumsum(x) * y, y + 1)).lower(X_N, np.int32(0))
    found = traced(lowered)
    assert found.returns == (((4,), "float32"), ((), "int32"))
    again = Traced(bytes(found.code), found.returns)

    def twice(x, y):
        first, y = again.call(x, y)
        return again.call(first, y)

    last, y = jax.jit(twice)(X_N, np.int32(2))
    np.testing.assert_array_equal(last, np.cumsum(np.cumsum(X_N) * 2) * 3)
    assert int(y) == 4


def test_shapes_are_those_of_arrays_and_of_their_descriptions():
    tree = {"a": X_N, "b": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}
    assert shapes(tree) == (((4,), "float32"), ((2, 3), "bfloat16"))
