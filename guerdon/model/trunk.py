"""From a row of token ids to one reward per completion: the trunk without its language-model head, pooled, then scored.

Three exact shortcuts, each switched on only after it has reproduced the plain computation on a probe at load:

1. A packed row of prompt trees runs as one sequence under a tree mask with explicit positions (see `tree`).
2. In the last layer only the scored tokens need queries, attention output and MLP; the rest need keys and values alone.
3. On CUDA the tree mask is a FlexAttention block mask, so that blocks that no token sees cost nothing.

What the plain computation is: each completion alone, right-padded, the state of its last token given to the head
(decoders), or whatever pooling the architecture itself has (encoders).
"""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guerdon.model.head import apply_head, plain
from guerdon.model.tree import PaddedRow, Row, TreeRow, padded_rows, sees, tree_rows

logger = logging.getLogger("guerdon")

# A shortcut must agree with the plain computation to this share of the largest state, by precision of the trunk.
_AGREE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 4e-2, torch.float16: 1e-2}


class Trunk:
    """How one architecture is run. `shares_prefix` and `skips_last_layer` say which shortcuts hold for it."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        inner = plain(net)
        self.pools_last = isinstance(_unwrapped(getattr(inner, "score", None)), nn.Linear)
        self.body: Any = getattr(inner, inner.base_model_prefix, None)
        self.uses_flex = False
        self.shares_prefix = False
        self.skips_last_layer = False
        if self.pools_last and self.body is not None:
            self.shares_prefix = self._agrees_with_plain()
            if self.shares_prefix and _give_scored_forward(self.body):
                self.skips_last_layer = True
                self.skips_last_layer = self._agrees_with_plain()

    def __call__(self, row: Row) -> Tensor:
        """Rewards (n,) float32 of the completions of a row; (n, M) from an ensemble."""
        if isinstance(row, TreeRow):
            return apply_head(self.net, self._tree_states(row))
        if self.pools_last:
            return apply_head(self.net, self._padded_states(row))
        logits = plain(self.net)(input_ids=row.ids, attention_mask=row.mask).logits
        return logits.float().squeeze(-1)  # type: ignore[no-any-return]

    def use_flex(self) -> None:
        """Run tree rows through FlexAttention block masks from now on (CUDA)."""
        plain(self.net).set_attn_implementation("flex_attention")
        self.uses_flex = True

    def _tree_states(self, row: TreeRow) -> Tensor:
        """States (n, width) of the scored tokens of a packed row."""
        extra: dict[str, Any] = {}
        if self.skips_last_layer:
            window = _last_window(self.body.config.get_text_config())
            extra = {"scored": row.scored, "scored_mask": sees(row, row.scored, window)[None, None]}
        states = self.body(
            input_ids=row.ids[None],
            attention_mask=tree_masks(self.body, row, self.uses_flex),
            position_ids=row.position[None],
            use_cache=False,
            **extra,
        ).last_hidden_state[0]
        return states if self.skips_last_layer else states[row.scored]  # type: ignore[no-any-return]

    def _padded_states(self, row: PaddedRow) -> Tensor:
        states = self.body(input_ids=row.ids, attention_mask=row.mask, use_cache=False).last_hidden_state
        last = row.mask.sum(1) - 1
        return states[torch.arange(len(last), device=last.device), last]  # type: ignore[no-any-return]

    @torch.no_grad()
    def _agrees_with_plain(self) -> bool:
        """Score one small tree both ways; anything but agreement means the shortcut is wrong for this architecture."""
        parameter = next(self.net.parameters())
        vocabulary = self.body.config.get_text_config().vocab_size
        ids = torch.randint(0, vocabulary, (24,), generator=torch.Generator().manual_seed(0)).tolist()
        tree = (tuple(ids[:9]), tuple(ids[:5] + ids[9:15]), tuple(ids[:5] + ids[15:24]))
        was_training = self.net.training
        self.net.eval()
        try:
            packed = self._tree_states(tree_rows([tree, tree[:2]], 64)[0].to(parameter.device))
            expected = []
            for members in (tree, tree[:2]):
                for completion in members:
                    row = padded_rows([(completion,)], 64, 0)[0].to(parameter.device)
                    expected.append(self._padded_states(row)[0])
        except (
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
            KeyError,
            IndexError,
            NotImplementedError,
        ) as error:
            logger.debug("tree probe failed, falling back: %r", error)
            return False
        finally:
            self.net.train(was_training)
        reference = torch.stack(expected).float()
        difference = (packed.float() - reference).abs().max() / reference.abs().max().clamp_min(1e-6)
        return bool(difference <= _AGREE.get(parameter.dtype, 1e-4))


def _unwrapped(head: Any) -> Any:
    """The linear layer inside PEFT's saved-module wrapper, where there is one."""
    return head.original_module if hasattr(head, "original_module") else head


def tree_masks(body: Any, row: TreeRow, uses_flex: bool) -> Any:
    """The tree mask of a row in the shape a decoder's `body` takes: one mask, or one per kind of layer where some slide.

    Raises NotImplementedError for layers that are not attention over all or the last tokens.
    """
    config = body.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())

    def build(window: int | None) -> Any:
        return block_mask(row, window) if uses_flex else _dense_mask(body, row, window)

    if not kinds <= {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"layers of kind {sorted(kinds)}")
    if "sliding_attention" in kinds:
        return {kind: build(config.sliding_window if kind == "sliding_attention" else None) for kind in kinds}
    return build(None if kinds else _last_window(config))


def _dense_mask(body: Any, row: TreeRow, window: int | None) -> Tensor:
    mask = sees(row, None, window)[None, None]
    if body.config._attn_implementation != "eager":
        return mask
    dtype = next(body.parameters()).dtype  # eager attention adds its mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _last_window(config: Any) -> int | None:
    """Sliding window in tokens of the last layer, None where it sees everything."""
    kinds = getattr(config, "layer_types", None)
    slides = kinds[-1] == "sliding_attention" if kinds else getattr(config, "use_sliding_window", True) is not False
    return getattr(config, "sliding_window", None) if slides else None


def block_mask(row: TreeRow, window: int | None) -> Any:
    """The same mask as `tree.sees`, as a FlexAttention block mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    tree, branch, position = row.tree, row.branch, row.position

    def allowed(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = position[q] - position[k]
        mask = (tree[q] == tree[k]) & ((branch[k] == 0) | (branch[q] == branch[k])) & (distance >= 0)
        return mask if window is None else mask & (distance < window)

    length = row.ids.numel()
    on_gpu = row.ids.is_cuda  # compiled there, or it would first write out the dense mask
    return create_block_mask(allowed, None, None, length, length, str(row.ids.device), BLOCK_SIZE=128, _compile=on_gpu)


def _give_scored_forward(body: Any) -> bool:
    """Teach the last decoder layer to compute only the tokens named by `scored`; False where its shape is not known."""
    layers = getattr(body, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    layer: Any = layers[-1]
    names = {name for name, _ in layer.named_children()}
    attention = getattr(layer, "self_attn", None)
    if names != {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"} or attention is None:
        return False
    if not all(hasattr(attention, name) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")):
        return False
    if not hasattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb"):
        return False
    if not hasattr(layer, "_guerdon_whole_forward"):
        layer._guerdon_whole_forward = layer.forward
        layer.forward = types.MethodType(_scored_forward, layer)
    return True


def _scored_forward(layer: Any, hidden_states: Tensor, *args: Any, scored: Tensor | None = None, **kwargs: Any) -> Any:
    """A pre-norm decoder layer whose queries, output and MLP exist for the `scored` tokens only: (1, T, d) -> (1, n,
    d).
    """
    mask = kwargs.pop("scored_mask", None)
    if scored is None:
        return layer._guerdon_whole_forward(hidden_states, *args, **kwargs)
    attention = layer.self_attn
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    cos, sin = kwargs["position_embeddings"]
    states = layer.input_layernorm(hidden_states)
    shape = (1, -1, attention.head_dim)
    q = _normed(attention, "q_norm", attention.q_proj(states[:, scored]).unflatten(-1, shape[1:])).transpose(1, 2)
    k = _normed(attention, "k_norm", attention.k_proj(states).unflatten(-1, shape[1:])).transpose(1, 2)
    v = attention.v_proj(states).unflatten(-1, shape[1:]).transpose(1, 2)
    q = rotate(q, q, cos[:, scored], sin[:, scored])[0]
    k = rotate(k, k, cos, sin)[1]
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=attention.scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    residual = hidden_states[:, scored] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return residual + layer.mlp(layer.post_attention_layernorm(residual))


def _normed(attention: Any, name: str, heads: Tensor) -> Tensor:
    return getattr(attention, name)(heads) if hasattr(attention, name) else heads
