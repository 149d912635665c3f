"""How far raters agree with each other, measured where a pair was judged more than once: the ceiling of any accuracy.

In: comparisons, some with the same prompt and the same two completions. Out: agreement with its interval, and the
ceiling that follows from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from guerdon.data.split import prompt_key
from guerdon.evaluate.intervals import ceiling, prompt_bootstrap
from guerdon.types import Comparison, Conversation

MIN_PROMPTS = 20  # fewer prompts with repeated judgements give no interval to speak of


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters on a pair that both decide.

    share       mean over pairs of the share of its couples of judgements that agree
    low, high   95 % interval over prompts
    pairs       pairs with at least two judgements that can be held against each other
    judgements  judgements of these pairs
    prompts     prompts of these pairs
    unnamed     judgements without an annotator; a row that was copied looks like agreement among them
    """

    share: float
    low: float
    high: float
    pairs: int
    judgements: int
    prompts: int
    unnamed: int

    @property
    def ceiling(self) -> tuple[float, float]:
        """The ceiling range at `share`, see `intervals.ceiling`; agreement below one half counts as one half."""
        return ceiling(max(0.5, self.share))

    @property
    def ceiling_limits(self) -> tuple[float, float]:
        """Lower end of the ceiling at `low`, upper end at `high`: the range widened by the doubt about agreement."""
        return ceiling(max(0.5, self.low))[0], ceiling(max(0.5, self.high))[1]


@dataclass
class _Votes:
    """The judgements of one pair: how often each side won, in all and by each named annotator."""

    prompt: str
    sides: Counter[bool] = field(default_factory=Counter)
    named: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def couples(self) -> tuple[int, int]:
        """(agreeing, all) couples of judgements by different raters; a rater is not held against himself."""
        by_annotator: Counter[str] = Counter()
        for (annotator, _), count in self.named.items():
            by_annotator[annotator] += count
        total = _choose_two(self.sides.total()) - sum(map(_choose_two, by_annotator.values()))
        agreeing = sum(map(_choose_two, self.sides.values())) - sum(map(_choose_two, self.named.values()))
        return agreeing, total


def rater_agreement(comparisons: Sequence[Comparison], *, seed: int = 0, resamples: int = 2000) -> Agreement | None:
    """Agreement between raters, from pairs that were judged more than once; None below 20 such prompts.

    Two judgements are of one pair when prompt and both completions are equal, in either order; ties are left out, as
    they are from accuracy. Couples of the same annotator are not counted, those without a name count as different.
    The share of a pair, agreeing couples over all couples, is unbiased for its (1-e)^2 + e^2; each pair counts once.
    """
    times = Counter(key for key, _, _ in _judgements(comparisons))
    votes: dict[bytes, _Votes] = {}
    for key, side, comparison in _judgements(comparisons):
        if times[key] > 1:
            one = votes.setdefault(key, _Votes(prompt_key(comparison)))
            one.sides[side] += 1
            if comparison.annotator is not None:
                one.named[comparison.annotator, side] += 1
    found = [(one, *one.couples()) for one in votes.values()]
    repeated = [(one, agreeing / total) for one, agreeing, total in found if total]
    prompts, group = np.unique([one.prompt for one, _ in repeated], return_inverse=True)
    if len(prompts) < MIN_PROMPTS:
        return None
    shares = np.array([share for _, share in repeated])
    low, high = prompt_bootstrap(shares, group.astype(np.int64), seed=seed, resamples=resamples)
    judgements = sum(one.sides.total() for one, _ in repeated)
    return Agreement(
        share=float(shares.mean()),
        low=low,
        high=high,
        pairs=len(repeated),
        judgements=judgements,
        prompts=len(prompts),
        unnamed=judgements - sum(one.named.total() for one, _ in repeated),
    )


def _judgements(comparisons: Sequence[Comparison]) -> Iterator[tuple[bytes, bool, Comparison]]:
    """Each decided pair: what is judged (the same in either order), which of the two won, and where it stands."""
    for comparison in comparisons:
        prompt = _digest(comparison.prompt)
        answers = [_digest(completion) for completion in comparison.completions]
        for pair in comparison.pairs():
            chosen, rejected = answers[pair.chosen], answers[pair.rejected]
            if pair.target != 0.5 and chosen != rejected:
                yield prompt + min(chosen, rejected) + max(chosen, rejected), chosen < rejected, comparison


def _choose_two(n: int) -> int:
    return n * (n - 1) // 2


def _digest(messages: Conversation) -> bytes:
    text = "\x1e".join(f"{message['role']}\x1f{message['content']}" for message in messages)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
