"""What every command needs of the machine: errors, exit codes, versions, signals, the cache.

The ground floor: imports no other wing.
"""
