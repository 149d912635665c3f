"""Conversations, a chat template and configs of tiny models, shared by the tests and their fixtures."""

from __future__ import annotations

from typing import Any


def tiny_config(name: str, vocabulary: int) -> Any:
    """A transformers config of the named family, a few thousand weights in size."""
    import transformers as t

    size = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 2,
        "initializer_range": 0.4 if "bert" in name else 0.1,  # wide enough that tiny models tell texts apart
    }
    grouped = size | {"num_key_value_heads": 2}
    wide = grouped | {"head_dim": 8}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    return {
        "qwen3": lambda: t.Qwen3Config(**wide),
        "qwen3-moe": lambda: t.Qwen3MoeConfig(
            **wide, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1
        ),
        "llama": lambda: t.LlamaConfig(**grouped),
        "mistral": lambda: t.MistralConfig(**grouped, sliding_window=6),
        "gemma2": lambda: t.Gemma2Config(**wide, sliding_window=6),
        "gemma3": lambda: t.Gemma3TextConfig(**wide, sliding_window=6),
        "gpt2": lambda: t.GPT2Config(
            vocab_size=vocabulary,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=512,
            pad_token_id=2,
            initializer_range=0.1,
        ),
        "gpt-neox": lambda: t.GPTNeoXConfig(**size),
        "bert": lambda: t.BertConfig(**size),
        "deberta-v2": lambda: t.DebertaV2Config(
            **size, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=32
        ),
        "modernbert": lambda: t.ModernBertConfig(**size, **ends, cls_token_id=0, sep_token_id=1),
    }[name]()


def chat(*texts: str) -> list[dict[str, str]]:
    """A conversation whose turns alternate between user and assistant."""
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]


CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
