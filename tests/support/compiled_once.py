"""One compiled program where the code under test asks for the same one again and again.

A command makes each of its programs once and ends; a test that calls its functions many times
would trace and compile them anew each time.
"""

import functools

import jax


class _Jax:
    """JAX, but for a jit that knows a partial of the same function and arguments again."""

    def __getattr__(self, name):
        return getattr(jax, name)

    @staticmethod
    def jit(partial, **settings):
        named = tuple(sorted(partial.keywords.items()))
        return _jitted(partial.func, partial.args, named, tuple(settings.items()))


@functools.cache
def _jitted(function, arguments, named, settings):
    return jax.jit(functools.partial(function, *arguments, **dict(named)), **dict(settings))


def within(monkeypatch, module):
    """From now on, and in this test alone, `module` makes its programs so."""
    monkeypatch.setattr(module, "jax", _Jax())
