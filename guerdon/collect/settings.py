"""How a study is run: everything a lead decides, kept as versioned JSON beside the study. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from guerdon.options import from_yaml
from guerdon.types import ConfigError

Reason = Literal["no", "optional", "required"]
MIN_RANDOM = 0.2  # share of the ordinary questions that chance always chooses
MOST = 1_000_000_000  # of anything that is counted: databases take no larger whole numbers than 2^31 - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a study; raises ConfigError for values that cannot be used.

    title          what raters read at the top; the study's name when empty
    k              candidates a question has; 0 allows any number from 2 to 9
    overlap        human raters wanted for each ordinary question
    give_up        a question that so many raters skipped or flagged is not asked any more
    limit          most ordinary questions one rater judges; 0 is no limit
    lock_seconds   how long a question is kept for the rater it was given to
    repeats        share of items that are a rater's own earlier question with the sides swapped
    repeat_after   items between a question and its repeat, at least
    gold           share of items whose answer is known and which look like all others
    attention      share of items that check whether the rater reads
    pass_mark      share of the training items to get right before ordinary ones are given
    attempts       how often the training may be tried
    strength       ask how much better the winner is, 1 to 3
    attributes     names of what each candidate is rated on; () asks for none
    scale          attributes are rated 1 to this
    rationale      whether a reason is asked for: no, optional, required
    edit           offer to rewrite the winner into a still better answer
    ties           offer "equally good"
    all_bad        offer "all are unacceptable"
    random         share of ordinary questions chosen by chance, at least 0.2; the rest goes to `arms` in equal parts
    arms           rules that choose the rest: uncertain, d-optimal
    mask           words hidden from raters in prompts and answers, besides the names of models we know
    seed           of everything drawn by chance
    """

    title: str = ""
    k: int = 2
    overlap: int = 2
    give_up: int = 3
    limit: int = 0
    lock_seconds: int = 1800
    repeats: float = 0.05
    repeat_after: int = 20
    gold: float = 0.05
    attention: float = 0.02
    pass_mark: float = 0.75
    attempts: int = 1
    strength: bool = True
    attributes: tuple[str, ...] = ()
    scale: int = 5
    rationale: Reason = "optional"
    edit: bool = False
    ties: bool = True
    all_bad: bool = True
    random: float = 1.0
    arms: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("overlap", "give_up", "limit", "lock_seconds", "repeat_after", "attempts"):
            _require(getattr(self, name) <= MOST, f"{name} is {getattr(self, name)}; write at most {MOST:,}")
        _require(abs(self.seed) < 2**63, f"seed is {self.seed}; write a number of at most 18 digits")
        _require(self.k == 0 or 2 <= self.k <= 9, f"k is {self.k}; write 0 (any) or 2 to 9")
        _require(self.overlap >= 1, f"overlap is {self.overlap}; at least 1 rater judges each question")
        _require(self.give_up >= 1, f"give_up is {self.give_up}; write 1 or more")
        _require(self.limit >= 0, f"limit is {self.limit}; write 0 (none) or more")
        _require(self.lock_seconds >= 10, f"lock_seconds is {self.lock_seconds}; nobody answers in under 10 s")
        _require(self.repeat_after >= 20, f"repeat_after is {self.repeat_after}; raters remember fewer than 20 items")
        _require(self.attempts >= 1, f"attempts is {self.attempts}; write 1 or more")
        _require(2 <= self.scale <= 10, f"scale is {self.scale}; write 2 to 10")
        _require(0 <= self.pass_mark <= 1, f"pass_mark is {self.pass_mark}; write a share between 0 and 1")
        for name in ("repeats", "gold", "attention"):
            share = getattr(self, name)
            _require(0 <= share <= 0.5, f"{name} is {share}; write a share between 0 and 0.5")
        hidden = self.repeats + self.gold + self.attention
        _require(
            hidden <= 0.6, f"repeats, gold and attention make {hidden:.2f} of all items; leave 0.4 for ordinary ones"
        )
        _require(
            MIN_RANDOM <= self.random <= 1,
            f"random is {self.random}; write 0.2 to 1: some questions are always chance's",
        )
        _require(
            set(self.arms) <= {"uncertain", "d-optimal"}, f"arms are {list(self.arms)}; known are uncertain, d-optimal"
        )
        _require(
            self.rationale in ("no", "optional", "required"),
            f"rationale is {self.rationale!r}; write no, optional or required",
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `to_json` wrote, also by an older version: fields it did not know have their default."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Settings by name. Raises ConfigError for a name that is none."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"there is no setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**plain)

    @classmethod
    def from_yaml(cls, path: str) -> Settings:
        """Settings from a YAML file with these names. Raises ConfigError, naming the file."""
        try:
            return from_yaml(cls, path)
        except ConfigError as error:
            message = str(error)
            raise ConfigError(message if message.startswith(path) else f"{path}: {message}") from None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
