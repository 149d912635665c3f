"""The native API as pydantic models: what the OpenAPI page says. Replies are written by hand, for speed; a test holds them
against these.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text256 = Annotated[str, Field(max_length=256)]


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str


class Options(BaseModel):
    """What may stand beside the things to score. Model, rule, run and step may also come as headers X-Guerdon-*."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: Text256 | None = Field(None, description="name of the model; the first one by default")
    reward: Text256 | None = Field(
        None, description="rule for an ensemble: mean, min, lcb (mean-std:1), mean-std:K, mean-var:K or quantile:Q"
    )
    run: Text256 | None = Field(None, description="policy run that this belongs to; it is then watched")
    step: int | None = Field(None, ge=0, description="step of the run")
    kl: float | list[float] | None = Field(
        None, description="nats between policy and reference on each item, for the watch"
    )
    contract: Text256 | None = Field(
        None, description="answer 412 unless the model has this contract; also as If-Match"
    )
    reference: float | str | list[Message] | None = Field(
        None, description="what probabilities compare with: a reward, or a completion of the prompt"
    )


class ScoreRequest(Options):
    """Exactly one of `conversations`, `messages`, `prompt` with `completions`, `texts` and `ids`."""

    conversations: list[list[Message]] | None = None
    messages: list[Message] | None = Field(None, description="one conversation")
    prompt: str | list[Message] | None = Field(None, description="what the completions answer")
    completions: list[str | list[Message]] | None = None
    texts: list[str] | None = Field(None, description="conversations that a chat template has rendered already")
    ids: list[list[int]] | None = Field(None, description="token ids, taken as they are")


class Scored(BaseModel):
    """One score. `value` is null unless `status` is ok."""

    value: float | None
    std: float | None = Field(description="disagreement of the members of an ensemble, in reward units")
    probability: float | None = Field(description="that it beats the reference; null without a measured temperature")
    out_of_distribution: bool | None = Field(description="farther from the training answers than 99 % of them")
    distance: float | None = Field(description="squared distance from the training answers, in units of theirs")
    tokens: int
    truncated: bool
    status: Literal["ok", "masked", "error"]
    reason: str | None
    members: list[float]
    contract: str | None


class ScoreReply(BaseModel):
    """Scores in the order of what was sent, and what they were made with."""

    model_config = ConfigDict(protected_namespaces=())
    model: str
    contract: str | None = Field(description="hash of the scoring contract, also as ETag; null for a model without one")
    reward: str
    reference: float | None = Field(description="reward that probabilities compare with")
    tokens: int
    scores: list[Scored]


class BestOfNRequest(Options):
    """Completions of one prompt to choose from."""

    prompt: str | list[Message]
    completions: list[str | list[Message]]
    answers: list[str | None] | None = Field(None, description="final answer of each completion, to vote on")


class Vote(BaseModel):
    """The completions that give one final answer, with their weight."""

    answer: str
    count: int
    share: float = Field(description="of all weight; the weight of a completion is exp(value / scale)")
    best: int = Field(description="index of the best completion that gives this answer")


class BestOfNReply(ScoreReply):
    """The choice, the scores it rests on, and the vote if answers were sent."""

    index: int | None = Field(description="the best completion; null when none could be scored")
    margin: float | None = Field(description="reward between the best and the best different one")
    kl_bound: float = Field(description="nats: log n - (n - 1) / n, the most that taking the best of n can cost")
    scale: float
    votes: list[Vote]


class ErrorDetail(BaseModel):
    """What went wrong, for a person (`message`) and for a program (`kind`)."""

    message: str
    kind: str
    request: str
    retry_after: float | None = None


class ErrorReply(BaseModel):
    """The body of every reply that is no success."""

    error: ErrorDetail


class ModelInfo(BaseModel):
    """A model that is served, with what its scores mean."""

    model_config = ConfigDict(protected_namespaces=())
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    contract: str | None
    fingerprint: str
    max_length: int
    members: int
    rules: list[str]
    reward: str
    temperature: float | None
    reference: float | None
    shares_prefix: bool
    out_of_distribution: bool = Field(description="whether distances from training answers are measured")


class ModelsReply(BaseModel):
    """The models, in the shape of OpenAI's list."""

    object: Literal["list"]
    data: list[ModelInfo]


class Load(BaseModel):
    """How busy one model is."""

    queue_tokens: int
    queue_limit: int
    tokens_per_second: float
    tokens_per_character: float
    drain_seconds: float
    active_runs: int


class Limits(BaseModel):
    """What a request may be at most."""

    max_items: int
    max_body: int
    body_seconds: float


class InfoReply(BaseModel):
    """The server, its models, their load and its limits."""

    model_config = ConfigDict(protected_namespaces=())
    name: Literal["guerdon"]
    version: str
    default_model: str
    models: list[ModelInfo]
    load: dict[str, Load]
    limits: Limits
    dialects: list[str]


class SwapRequest(BaseModel):
    """Put another checkpoint in the place of a model."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field(description="folder or hub id of the new model")
    force: bool = False


class Health(BaseModel):
    """Whether the server lives, or takes requests."""

    status: str
