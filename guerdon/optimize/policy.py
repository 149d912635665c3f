"""The policy: a causal language model that answers prompts and knows how probable its answers are.

`Policy.load(path)` takes a folder or hub id; `generate` samples completions, `forward` gives the log-probability of given
ones, with gradients. The chat template of the tokenizer renders prompts; a model without one gets a plain
`Human: / Assistant:` template, which is saved with it. A completion is what stands between the generation prompt and the
end of the answer, end-of-sequence token included.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from guerdon.files import replacing_folder
from guerdon.model.head import plain
from guerdon.model.load import resolve
from guerdon.model.tree import Ids, Row, TreeRow
from guerdon.model.trunk import tree_masks
from guerdon.optimize.layout import Group, TokenRow, token_rows
from guerdon.types import ConfigError, Conversation, DataError

# Sharing a prefix must reproduce the plain computation to this many nats per token, by precision.
_AGREE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}


class TokenScores(NamedTuple):
    """Log-probability (nats, with gradient) and entropy (nats, without) of each completion token of a row, (n,) float32."""

    logprob: Tensor
    entropy: Tensor


class Policy(nn.Module):
    """A causal language model with its tokenizer. Build it with `load`.

    shares_prefix  True when prompt trees give the same log-probabilities as single completions (measured at load)
    end_ids        tokens that end an answer
    """

    def __init__(self, net: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.net = net
        self.training = net.training  # so that `evaluating` does not switch dropout on when it is done
        self.tokenizer = tokenizer
        self.end_ids = _end_ids(net, tokenizer)
        self.uses_flex = False
        self.shares_prefix = False
        self.shares_prefix = self._agrees_with_plain()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        lora_rank: int | None = None,
        seed: int = 0,
    ) -> Policy:
        """Load a causal language model with dropout off; with `lora_rank`, a new LoRA adapter is all that trains.

        Raises ConfigError when there is no such model or it cannot generate.
        """
        source = resolve(path)
        transformers_logging.disable_progress_bar()
        try:
            net = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ConfigError(f"{path}: is no language model that can be a policy ({_first_line(error)})") from error
        _prepare_tokenizer(tokenizer)
        if len(tokenizer) > net.get_input_embeddings().weight.shape[0]:
            net.resize_token_embeddings(len(tokenizer))
        net.config.pad_token_id = tokenizer.pad_token_id
        if net.generation_config.eos_token_id is None:  # whoever loads the saved folder must see answers end as well
            net.generation_config.eos_token_id = tokenizer.eos_token_id
        if lora_rank:
            net = with_lora(net, lora_rank, seed)
        net.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        policy = cls(net, tokenizer)
        if policy.device.type == "cuda" and policy.shares_prefix:
            plain(net).set_attn_implementation("flex_attention")
            policy.uses_flex = True
        return policy

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def body(self) -> Any:
        """The decoder without its language-model head."""
        inner = plain(self.net)
        return getattr(inner, inner.base_model_prefix)

    @property
    def context(self) -> int | None:
        """The most tokens that prompt and answer may have together; None where the model names no limit."""
        found = getattr(plain(self.net).config.get_text_config(), "max_position_embeddings", None)
        return int(found) if found and found > 0 else None

    def encode(self, prompts: Sequence[Conversation]) -> list[Ids]:
        """Token ids of each prompt with the generation prompt behind it. Raises DataError when the template refuses one."""
        texts = [self.render(prompt, True) for prompt in prompts]
        if not texts:
            return []
        return [tuple(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def encode_answer(self, prompt: Conversation, answer: str) -> tuple[Ids, Ids]:
        """Ids of the prompt and of `answer` as a completion, the tokens that the template closes a turn with included.

        Raises DataError when the template does not write the prompt at the start of the whole conversation.
        """
        head = self.render(prompt, True)
        whole = self.render([*prompt, {"role": "assistant", "content": answer}], False)
        if not whole.startswith(head):
            raise DataError(
                "the chat template renders a prompt differently once it is answered; give it another template"
            )
        ids = self.tokenizer([head, whole[len(head) :].rstrip("\n")], add_special_tokens=False)["input_ids"]
        return tuple(ids[0]), tuple(ids[1])

    def render(self, conversation: Conversation, generation_prompt: bool) -> str:
        """The conversation as the template writes it. Raises DataError when the template refuses."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(conversation), tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except Exception as error:  # templates raise their own errors through Jinja
            roles = ", ".join(str(message.get("role")) for message in conversation)
            raise DataError(f"the chat template refuses a conversation with roles [{roles}]: {error}") from error

    def decode(self, ids: Ids) -> str:
        """The text of a completion, without special tokens and outer white space: what the reward reads."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def rows(self, groups: Sequence[Group], budget: int) -> list[TokenRow]:
        """Lay groups out for `forward`, in rows of about `budget` tokens."""
        pad_to = 128 if self.uses_flex else 1
        return token_rows(
            groups, budget, shares_prefix=self.shares_prefix, pad_id=self.tokenizer.pad_token_id, pad_to=pad_to
        )

    def forward(self, row: TokenRow, temperature: float = 1.0) -> TokenScores:
        """Log-probabilities and entropies of the completion tokens of a row, at this sampling temperature."""
        logits = _logits(self, row).float()
        if temperature != 1.0:
            logits = logits / temperature
        logprobs = torch.log_softmax(logits, dim=-1)
        with torch.no_grad():
            entropy = -(logprobs.exp() * logprobs).sum(-1)
        return TokenScores(logprobs.gather(1, row.target[:, None])[:, 0], entropy)

    @torch.no_grad()
    def logprobs(self, groups: Sequence[Group], budget: int, temperature: float = 1.0) -> dict[int, Tensor]:
        """Log-probabilities (T,) in nats of the tokens of every sample, on the CPU, without gradients."""
        found: dict[int, Tensor] = {}
        for row in self.rows(groups, budget):
            found.update(by_sample(row, self(row.to(self.device), temperature).logprob.cpu()))
        return found

    def reference(self) -> Policy:
        """What the policy is now, frozen: with LoRA the base model without its adapter, else a copy."""
        if hasattr(self.net, "peft_config"):
            return _WithoutAdapter(self)
        frozen = Policy(copy.deepcopy(self.net).requires_grad_(False), self.tokenizer)
        frozen.uses_flex = self.uses_flex
        return frozen

    def save(self, folder: str | Path) -> None:
        """Write a plain transformers folder, LoRA merged in; it appears whole or not at all."""
        net: Any = self.net
        if hasattr(net, "peft_config"):
            net = copy.deepcopy(net).merge_and_unload()
        with replacing_folder(Path(folder)) as staging:
            net.save_pretrained(staging)
            self.tokenizer.save_pretrained(staging)

    @torch.no_grad()
    def _agrees_with_plain(self) -> bool:
        """Whether one small tree gives the log-probabilities of its completions taken alone."""
        vocabulary = plain(self.net).config.get_text_config().vocab_size
        ids = torch.randint(0, vocabulary, (24,), generator=torch.Generator().manual_seed(0)).tolist()
        group = Group(tuple(ids[:5]), (tuple(ids[5:9]), tuple(ids[9:15]), (ids[5], *ids[15:24])), (0, 1, 2))
        pad = self.tokenizer.pad_token_id
        try:
            found = [
                {
                    sample: scores
                    for row in token_rows([group], 64, shares_prefix=shares, pad_id=pad)
                    for sample, scores in by_sample(row, self(row.to(self.device)).logprob).items()
                }
                for shares in (True, False)
            ]
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, NotImplementedError):
            return False
        difference = max(float((found[0][k] - found[1][k]).abs().max()) for k in range(3))
        return difference <= _AGREE.get(next(self.net.parameters()).dtype, 1e-3)


class _WithoutAdapter(Policy):
    """The base model of a policy with LoRA: the same weights, its adapter switched off while it computes."""

    def __init__(self, policy: Policy) -> None:
        nn.Module.__init__(self)
        self._policy = [policy]  # in a list, so that the weights are not registered twice
        self.tokenizer, self.end_ids = policy.tokenizer, policy.end_ids
        self.uses_flex, self.shares_prefix = policy.uses_flex, policy.shares_prefix

    @property
    def net(self) -> Any:  # type: ignore[override]
        return self._policy[0].net

    def forward(self, row: TokenRow, temperature: float = 1.0) -> TokenScores:
        with self.net.disable_adapter():
            return super().forward(row, temperature)


def _logits(policy: Policy, row: TokenRow) -> Tensor:
    """Logits (n, vocabulary) that predict the completion tokens, by the model's own head and nothing before it."""
    inner: Row = row.row
    if isinstance(inner, TreeRow):
        return policy.net(  # type: ignore[no-any-return]
            input_ids=inner.ids[None],
            attention_mask=tree_masks(policy.body, inner, policy.uses_flex),
            position_ids=inner.position[None],
            use_cache=False,
            logits_to_keep=row.predictor,
        ).logits[0]
    logits = policy.net(input_ids=inner.ids, attention_mask=inner.mask, use_cache=False).logits
    return logits.flatten(0, 1)[row.predictor]  # type: ignore[no-any-return]


def by_sample(row: TokenRow, values: Tensor) -> dict[int, Tensor]:
    """The values (n,) of a row's tokens, apart for each sample."""
    samples, counts = torch.unique_consecutive(row.sample, return_counts=True)
    return dict(zip(samples.tolist(), torch.split(values, counts.tolist()), strict=True))


def with_lora(net: Any, rank: int, seed: int) -> PeftModel:
    """A new LoRA adapter on all linear layers of a language model (scale 2), the only weights that train."""
    lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(net, lora)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients until the block ends."""
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train(was)


def _end_ids(net: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end token and those that the model's own generation config names."""
    config = getattr(plain(net), "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def _prepare_tokenizer(tokenizer: Any) -> None:
    """A chat template and a pad token of its own, where the tokenizer has none. Raises ConfigError without an end token."""
    if tokenizer.eos_token is None:
        raise ConfigError("the tokenizer has no end-of-sequence token, so an answer would never end; set eos_token")
    if not tokenizer.chat_template:
        tokenizer.chat_template = _plain_template(tokenizer)
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.padding_side = "right"


def _plain_template(tokenizer: Any) -> str:
    """`Human: ...` and `Assistant: ...` paragraphs, as the reward model's plain template writes them, with a generation
    prompt that ends before the space, so that the answer's first token carries it.
    """
    opening = tokenizer.bos_token or ""
    return (
        "{%- set names = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant', 'tool': 'Tool'} -%}"
        + ("{{ " + repr(opening) + " }}" if opening else "")
        + "{%- for message in messages -%}"
        "{{ ('' if loop.first else '\\n\\n') ~ names.get(message['role'], message['role']) ~ ': ' ~ message['content'] }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '\\n\\nAssistant:' }}{%- else -%}{{ "
        + repr(tokenizer.eos_token)
        + " }}{%- endif -%}"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
