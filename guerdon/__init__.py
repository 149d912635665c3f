"""Guerdon turns human comparisons into a reward that can be trusted. Importing it loads no torch.

import guerdon
model = guerdon.RewardModel.load("runs/demo/model")
model.score([[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guerdon.types import Comparison, Message, Score

if TYPE_CHECKING:
    from guerdon.client import Client as Client
    from guerdon.model.reward import RewardModel as RewardModel

__version__ = "0.1.0"
__all__ = ["Client", "Comparison", "Message", "RewardModel", "Score", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the heavy names on first use, so that `import guerdon` stays instant."""
    if name == "Client":
        from guerdon.client import Client

        return Client
    if name == "RewardModel":
        from guerdon.model.reward import RewardModel

        return RewardModel
    raise AttributeError(f"module 'guerdon' has no attribute '{name}'")
