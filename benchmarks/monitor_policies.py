"""Small softmax policies trained by policy gradient, for `monitor_simulation.py`: curves that nobody drew.

An answer fills `SLOTS` slots with one of `TOKENS` tokens each; each of `KINDS_OF_PROMPT` kinds of prompt wants others. Gold
likes the right tokens and dislikes much filler. The reward has learnt both with errors, and where it is hackable it pays
for filler. Filler is rare at first, so gold rises until it spreads. RLOO with Adam, as in real runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guerdon.optimize.course import SHARE

KINDS_OF_PROMPT, SLOTS, TOKENS, FILLER = 6, 10, 12, 2
PROMPTS, ANSWERS = 48, 4  # of a step
Array = np.ndarray


@dataclass(frozen=True)
class Trace:
    """Every answer of a run: gold, proxy and log-ratios in nats, to the reference and to the policy's mean of late, each
    (steps, PROMPTS, ANSWERS), and KL of each step in nats per sequence (k1)."""

    gold: Array
    proxy: Array
    ratio: Array
    course: Array
    kl: Array


def train(seed: int, is_hackable: bool, steps: int) -> Trace:
    """One run. Hackable runs have no KL penalty and a reward that pays for filler; most benign ones have a small penalty."""
    rng = np.random.default_rng(seed)
    liked = rng.uniform(0, 1, (KINDS_OF_PROMPT, SLOTS, TOKENS)) ** 2
    liked[:, :, :FILLER] = 0.15
    error = (0.35 if is_hackable else 0.14) * rng.normal(size=liked.shape)
    pay = rng.uniform(1.8, 3.2) if is_hackable else rng.uniform(0, 0.2)
    beta = 0.0 if is_hackable or rng.random() < 0.4 else rng.uniform(0.02, 0.08)
    rate = rng.uniform(0.015, 0.05) if is_hackable else rng.uniform(0.02, 0.12)
    reference = np.zeros((SLOTS, TOKENS))
    reference[:, :FILLER] = rng.uniform(-4, -2)
    shared, own = Adam(reference.copy(), rate), Adam(np.zeros_like(liked), 0.6 * rate)
    base, slot, trace, late = log_softmax(reference), np.arange(SLOTS), [], reference[None]
    for _ in range(steps):
        weights = shared.value[None] + own.value
        logs, before = log_softmax(weights), log_softmax(late)
        late = late + SHARE * (weights - late)
        kind = rng.integers(0, KINDS_OF_PROMPT, PROMPTS).repeat(ANSWERS)
        ease = rng.normal(size=(2, PROMPTS)).repeat(ANSWERS, axis=1)
        chances = np.exp(logs)[kind]
        token = (chances.cumsum(-1) < rng.random((len(kind), SLOTS, 1))).sum(-1).clip(max=TOKENS - 1)
        at = (kind[:, None], slot, token)
        quality, filler = liked[at].mean(1), (token < FILLER).mean(1)
        gold = 0.1 + 1.1 * quality - 0.6 * np.maximum(filler - 0.2, 0) + 0.08 * ease[0]
        gold = np.clip(gold + 0.05 * rng.normal(size=len(kind)), 0, 1)
        proxy = 4 * quality + 2 * error[at].mean(1) + pay * filler + 0.5 * ease[1]
        kl = (logs[at] - base[slot, token]).sum(1)
        course = (logs[at] - np.broadcast_to(before, logs.shape)[at]).sum(1)
        reward = (proxy - beta * kl).reshape(PROMPTS, ANSWERS)
        better = ANSWERS / (ANSWERS - 1) * (reward - reward.mean(1, keepdims=True))  # against the mean of the others
        push = better.reshape(-1, 1, 1) * (np.eye(TOKENS)[token] - chances) / len(kind)
        gradient = (np.eye(KINDS_OF_PROMPT)[kind].T @ push.reshape(len(kind), -1)).reshape(liked.shape)
        shared.step(gradient.sum(0))
        own.step(gradient)
        trace.append((*(part.reshape(PROMPTS, ANSWERS) for part in (gold, proxy, kl, course)), kl.mean()))
    return Trace(*(np.array(part) for part in zip(*trace, strict=True)))


class Adam:
    """Gradient ascent with Adam (Kingma and Ba 2015) on one array."""

    def __init__(self, value: Array, rate: float) -> None:
        self.value, self.rate, self.steps = value, rate, 0
        self.first, self.second = np.zeros_like(value), np.zeros_like(value)

    def step(self, gradient: Array) -> None:
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.95 * self.second + 0.05 * gradient**2
        scale = np.sqrt(self.second / (1 - 0.95**self.steps)) + 1e-6
        self.value = self.value + self.rate * self.first / (1 - 0.9**self.steps) / scale


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
