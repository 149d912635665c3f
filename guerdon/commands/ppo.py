"""guerdon optimize ppo: see `optimize`."""

from functools import partial

from guerdon.commands.optimize import optimize, parse_as

ppo = optimize
parse = partial(parse_as, "ppo")
