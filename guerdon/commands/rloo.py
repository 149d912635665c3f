"""guerdon optimize rloo: see `optimize`."""

from functools import partial

from guerdon.commands.optimize import optimize, parse_as

rloo = optimize
parse = partial(parse_as, "rloo")
