"""vLLM 0.33.0's pooling replies and errors, recorded by hand from its pydantic models; a field that it does not have fails.

From vllm/entrypoints/pooling/{classify,pooling,scoring}/protocol.py and vllm/entrypoints/serve/engine/protocol.py. vLLM
itself cannot be installed for a test: its wheel is hundreds of megabytes, and building its source asks for torch and CUDA.
`same_fields` holds these records against the real classes wherever vLLM's source is at hand.
"""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PromptTokenUsageInfo(Shape):
    cached_tokens: int | None = None
    created_cache_tokens: int | None = None
    multimodal_tokens: dict[str, int] | None = None


class CompletionTokenUsageInfo(Shape):
    reasoning_tokens: int = 0


class UsageInfo(Shape):
    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptTokenUsageInfo | None = None
    completion_tokens_details: CompletionTokenUsageInfo | None = None


class ClassificationData(Shape):
    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassificationResponse(Shape):
    id: str
    object: str
    created: int
    model: str
    data: list[ClassificationData]
    usage: UsageInfo


class PoolingResponseData(Shape):
    index: int
    object: str
    data: list[list[float]] | list[float] | str


class PoolingResponse(Shape):
    id: str
    object: str
    created: int
    model: str
    data: list[PoolingResponseData]
    usage: UsageInfo


class ScoreResponseData(Shape):
    index: int
    object: str
    score: float


class ScoreResponse(Shape):
    id: str
    object: str
    created: int
    model: str
    data: list[ScoreResponseData]
    usage: UsageInfo


class RerankDocument(Shape):
    text: str | None = None
    multi_modal: list[Any] | None = None


class RerankResult(Shape):
    index: int
    document: RerankDocument
    relevance_score: float


class RerankUsage(Shape):
    prompt_tokens: int
    total_tokens: int


class RerankResponse(Shape):
    id: str
    model: str
    usage: RerankUsage
    results: list[RerankResult]


class ErrorInfo(Shape):
    message: str
    type: str
    param: str | None = None
    code: int


class ErrorResponse(Shape):
    error: ErrorInfo


class ModelCard(Shape):
    id: str
    object: str
    created: int
    owned_by: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    permission: list[Any]


class ModelList(Shape):
    object: str
    data: list[ModelCard]


# Fields of requests, as written by callers of 0.33.0; each must be accepted or refused with a sentence, never overlooked.
COMMON = ("model", "user", "truncate_prompt_tokens", "padding", "truncation_side", "request_id", "priority", "mm_processor_kwargs", "cache_salt", "use_activation")  # fmt: skip
COMPLETION = ("input", "add_special_tokens")
CHAT = ("messages", "add_generation_prompt", "continue_final_message", "add_special_tokens", "chat_template", "chat_template_kwargs", "media_io_kwargs")  # fmt: skip
POOLING = ("task", "encoding_format", "embed_dtype", "endianness", "dimensions")
SCORING = ("max_tokens_per_query", "max_tokens_per_doc", "instruction", "chat_template_kwargs")


def same_fields(recorded: type[BaseModel], real: type[BaseModel]) -> None:
    """Raises AssertionError when the real class has other fields, or fields of other types, than the record."""
    ours, theirs = recorded.model_fields, real.model_fields
    assert ours.keys() == theirs.keys(), f"{real.__name__}: {ours.keys() ^ theirs.keys()}"
    for name in ours:
        assert _agree(ours[name].annotation, theirs[name].annotation), f"{real.__name__}.{name}"


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether two types are the same, classes by their names; Any agrees with everything."""
    union, inner = (types.UnionType, typing.Union), (typing.get_args(ours), typing.get_args(theirs))
    if ours is Any:
        return True
    if typing.get_origin(ours) in union and typing.get_origin(theirs) in union:
        return len(inner[0]) == len(inner[1]) and all(any(_agree(one, other) for other in inner[1]) for one in inner[0])
    if typing.get_origin(ours) is list and typing.get_origin(theirs) is list:
        return _agree(inner[0][0], inner[1][0])
    return getattr(ours, "__name__", ours) == getattr(theirs, "__name__", theirs)
