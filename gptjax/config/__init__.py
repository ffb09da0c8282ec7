"""Every knob of a run, its rule, and the ways a value comes in.

`knobs` lists them, `config` checks them together, `config_file` reads Python files and command
lines. Imports `system` alone; neither JAX nor numpy, so that a typo is answered at once.
"""
