"""A tokenizer trained on lab text and a small causal transformer built from a config: a start that needs no download.

In: texts and a seed. Out: a plain Hugging Face folder that AutoTokenizer, AutoModelForCausalLM and
AutoModelForSequenceClassification load offline. The only file of the lab that loads torch and transformers.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from guerdon.lab.world import prompts
from guerdon.lab.writers import SOUND, WRITERS, Writer
from guerdon.types import ConfigError

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"


def corpus(n: int, seed: int, writers: Sequence[Writer] = SOUND) -> list[str]:
    """`n` conversations of the lab as plain text, by mostly sound writers: what the small model is pretrained on.

    They are written as `Human: ... Assistant: ...`, the way a model without a chat template is shown conversations.
    """
    rng = random.Random(f"corpus {seed}")
    return [f"Human: {p}\n\nAssistant: {rng.choice(writers).write(p, rng)}" for p in prompts(n, seed)]


def build_tokenizer(texts: Sequence[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer that can spell any text, with pad, bos and eos tokens and no chat template.

    The vocabulary is at most `vocab_size`; less text gives less. Raises ConfigError below 259, the bytes and the three.
    """
    if vocab_size < 259:
        raise ConfigError(
            f"a vocabulary of {vocab_size} cannot hold the 256 bytes and 3 special tokens; use 259 or more"
        )
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def build_backbone(
    folder: str | Path,
    *,
    seed: int,
    layers: int = 4,
    width: int = 192,
    heads: int = 4,
    vocab_size: int = 2048,
    context: int = 512,
) -> None:
    """Write a Qwen3-style causal language model with seeded random weights, and its tokenizer, to `folder`.

    Width is split evenly over the heads; input and output embeddings are tied. Raises ConfigError when width and heads
    do not fit together.
    """
    if width % (2 * heads):
        raise ConfigError(f"width {width} must be a multiple of twice the {heads} heads; rotary positions turn pairs")
    tokenizer = build_tokenizer(corpus(3000, seed, WRITERS), vocab_size)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,  # the usual 0.02 suits widths in the thousands
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        _attend_to_copy(model)
    _write(Path(folder), model, tokenizer)


def pretrain(
    folder: str | Path,
    texts: Sequence[str],
    steps: int,
    seed: int,
    *,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
) -> list[float]:
    """Train the model in `folder` on next tokens, in place; returns the loss of every step in nats per token.

    Texts are opened by bos and closed by eos, and cut at the model's context. AdamW, 5 % warm-up, cosine to 10 %. Many small
    steps teach copying sooner than few large ones: about 1,000 steps of 8 texts are needed before it begins to show.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = model.config.max_position_embeddings
    rows = tokenizer([f"{BOS}{t}{EOS}" for t in texts], add_special_tokens=False, truncation=True, max_length=longest)[
        "input_ids"
    ]
    batches = _batches([len(row) for row in rows], batch_size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    losses: list[float] = []
    for step in range(steps):
        ids = _padded([rows[i] for i in batches[step % len(batches)]], tokenizer.pad_token_id)
        logits = model(ids[:, :-1], attention_mask=(ids[:, :-1] != tokenizer.pad_token_id).long()).logits
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=tokenizer.pad_token_id)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _course(step, steps)
        optimizer.step()
        losses.append(loss.item())
    _write(Path(folder), model, tokenizer)
    return losses


@torch.no_grad()
def _attend_to_copy(model: Qwen3ForCausalLM) -> None:
    """Start each head's output as the transpose of its values, so that what is attended to is first of all passed on.

    Answers of the lab repeat values of the prompt; from this start copying them is learned in fewer steps. Source of the
    idea: Trockman & Kolter 2023 (arXiv 2305.09828), who tie queries to keys as well, which did not help here.
    """
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)


def _course(step: int, steps: int) -> float:
    warmup = max(1, steps // 20)
    done = max(0, step - warmup) / max(1, steps - warmup)
    return min(1.0, (step + 1) / warmup) * (0.55 + 0.45 * math.cos(math.pi * done))


def _batches(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Batches of rows of similar length, in random order, so that little is padded."""
    rng = random.Random(f"pretrain {seed}")
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)


def _write(folder: Path, model: Any, tokenizer: Any) -> None:
    """Save beside the folder first, so that a folder that exists is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        folder.mkdir(exist_ok=True)
        for file in staging.iterdir():
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
