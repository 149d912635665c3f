"""Small things every test may use: tiny models built from a config, a tokenizer trained on the spot, the real data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import CHAT_TEMPLATE, tiny_config

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real preference data that lies beside the checkout."""
    if not DATA.is_dir():
        pytest.skip(f"real preference data is not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """A byte-level BPE tokenizer; keyword arguments name its special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["hello world, how are you today? the quick brown fox jumps over the lazy dog"] * 4, trainer
    )

    def make(**special: str) -> Any:
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(bpe.to_str()), **special)

    return make


@pytest.fixture(scope="session")
def make_backbone(make_tokenizer: Callable[..., Any]) -> Callable[..., Path]:
    """Write a tiny pretrained model without a head (`name` as in `tiny_config`) and its tokenizer into a folder."""
    import torch
    from transformers import AutoModel

    def make(folder: Path, name: str = "qwen3", **special: str) -> Path:
        is_encoder = "bert" in name
        default = (
            {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
            if is_encoder
            else {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        )
        tokenizer = make_tokenizer(**(special or default))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            AutoModel.from_config(tiny_config(name, len(tokenizer))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def chat_policy(make_tokenizer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen3-style language model of a few thousand weights, a tokenizer and `CHAT_TEMPLATE`."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("policy")
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(tiny_config("qwen3", len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def _accelerate_as_in_a_new_process() -> Iterator[None]:
    """Accelerate keeps the precision of the first Accelerator of a process; no test file inherits that of another."""
    yield
    if "accelerate.state" in sys.modules:
        state = sys.modules["accelerate.state"]
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
