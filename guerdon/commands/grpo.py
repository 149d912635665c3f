"""guerdon optimize grpo: see `optimize`."""

from functools import partial

from guerdon.commands.optimize import optimize, parse_as

grpo = optimize
parse = partial(parse_as, "grpo")
