"""The queue in front of a model: bounded in tokens, fair between callers, and emptied of what nobody waits for.

Admission comes before tokenisation, so tokens are estimated from characters; the estimate follows the ratio that was
measured lately. Callers (API keys, and runs within them) take turns by deficit round robin in tokens (Shreedhar and
Varghese 1995): each turn adds a quantum to a caller's account, and what it takes is charged. A burst of one caller waits
behind itself and not in front of the others.

Everything here is touched by the event loop alone, so nothing is locked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from guerdon.serve.call import Item, Refused

QUANTUM = 1024  # tokens of a turn
_FIRST_RATIO = 0.3  # tokens per character of English before anything was measured
_TEMPLATE = 12  # characters that a template writes around a message, roughly


@dataclass(eq=False, slots=True)
class Entry:
    """An item that waits: its place in its request, its tokens as estimated, and those of them that are its prompt's."""

    owner: object
    index: int
    item: Item
    cost: int
    prompt_cost: int = 0
    group: Hashable = None
    taken: bool = False


@dataclass(eq=False, slots=True)
class Flow:
    """What waits for one caller. `groups` finds the entries that answer one prompt."""

    entries: deque[Entry] = field(default_factory=deque)
    groups: dict[Hashable, dict[Entry, None]] = field(default_factory=dict)
    tokens: int = 0
    deficit: int = 0


class Estimate:
    """Tokens per character as measured lately: a running mean over about the last hundred thousand characters."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.ratio = _FIRST_RATIO

    def learn(self, characters: int, tokens: int) -> None:
        """Take a batch into account: its characters, and the tokens they were."""
        weight = characters / (characters + 100_000)
        if characters:
            self.ratio += weight * (tokens / characters - self.ratio)

    def entry(self, owner: object, index: int, item: Item, group: Hashable = None) -> Entry:
        """The item as it will wait. What is not shaped as it should be costs a token; encoding it will say what is wrong."""
        if item.ids is not None:
            return Entry(owner, index, item, self._tokens(len(item.ids) / self.ratio), 0, group)
        if item.text is not None:
            return Entry(owner, index, item, self._tokens(len(item.text)), 0, group)
        try:
            *prompt, last = item.messages or ()
            key = tuple((message["role"], message["content"]) for message in prompt)
            before = sum(len(content) + _TEMPLATE for _, content in key)
            cost = self._tokens(before + len(last["content"]) + _TEMPLATE)
            hash(key)
        except (TypeError, KeyError, ValueError):
            return Entry(owner, index, item, 1)
        return Entry(owner, index, item, cost, min(cost, self._tokens(before)) if prompt else 0, key or group)

    def _tokens(self, characters: float) -> int:
        return min(self.max_length, int(characters * self.ratio) + 1)


def characters(item: Item) -> int:
    """Characters of an item as the estimate counts them; 0 for token ids and for what has no shape."""
    if item.text is not None:
        return len(item.text)
    try:
        return sum(len(message["content"]) + _TEMPLATE for message in item.messages or ())
    except (TypeError, KeyError):
        return 0


class FairQueue:
    """Entries of all callers for one model. `limit` tokens may wait; one caller alone may fill two thirds of that.

    A caller is admitted while what it has waiting is at most twice the room that is left (dynamic thresholds, Choudhury
    and Hahne 1998), so there is always room for one that has nothing waiting yet.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = 0
        self.flows: dict[str, Flow] = {}
        self._turns: deque[str] = deque()

    def require_room(self, key: str, cost: int, drain: float) -> None:
        """Raise Refused when a request of `cost` tokens is too large ever (413) or now (429, with `drain` seconds)."""
        if 3 * cost > 2 * self.limit:
            raise Refused(
                413,
                f"the request has about {cost} tokens, more than the {2 * self.limit // 3} that one caller may have waiting; "
                "divide it, or stream it to /v1/score/stream",
                kind="size",
            )
        own = self.flows[key].tokens if key in self.flows else 0
        if own + cost > 2 * (self.limit - self.tokens - cost):
            raise Refused(
                429, f"{self.tokens} tokens are waiting, {own} of them yours; try again later", drain, "overloaded"
            )

    @property
    def full(self) -> bool:
        """True when a single caller could not have filled it further."""
        return 3 * self.tokens >= 1.9 * self.limit

    def put(self, key: str, entries: Sequence[Entry]) -> None:
        """Let entries wait on behalf of a caller."""
        flow = self.flows.get(key)
        if flow is None:
            flow = self.flows[key] = Flow()
            self._turns.append(key)
        cost = 0
        for entry in entries:
            cost += entry.cost
            if entry.group is not None:
                flow.groups.setdefault(entry.group, {})[entry] = None
        flow.entries.extend(entries)
        flow.tokens += cost
        self.tokens += cost

    def take(self, budget: int) -> list[Entry]:
        """The next entries, about `budget` tokens of them: in turns, and with each the others on its prompt.

        A prompt that several entries share counts once.
        """
        batch: list[Entry] = []
        while budget > 0 and self._turns:
            key = self._turns[0]
            flow = self.flows[key]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
            while flow.entries and flow.deficit > 0 and budget > 0:
                entry = flow.entries.popleft()
                if entry.taken:
                    continue
                spent = self._take_group(flow, entry, budget, batch)
                budget -= spent
                flow.deficit -= spent
            if not flow.tokens:
                del self.flows[key]
                self._turns.popleft()
            elif flow.deficit <= 0:
                self._turns.rotate(-1)
        return batch

    def drop(self, key: str, owner: object) -> int:
        """Forget what a request still has waiting; returns how many items that were."""
        flow = self.flows.get(key)
        if flow is None:
            return 0
        dropped = [entry for entry in flow.entries if entry.owner is owner and not entry.taken]
        for entry in dropped:
            self._mark_taken(flow, entry)
        flow.entries = deque(entry for entry in flow.entries if not entry.taken)
        if not flow.tokens:
            del self.flows[key]
            self._turns.remove(key)
        return len(dropped)

    def _take_group(self, flow: Flow, first: Entry, budget: int, batch: list[Entry]) -> int:
        """Take an entry and, while the budget lasts, those that answer the same prompt; returns the tokens they cost."""
        spent, chosen = first.cost, [first]
        for entry in flow.groups.get(first.group, ()) if first.group is not None else ():
            if spent >= budget:
                break
            if entry is not first:
                spent += entry.cost - entry.prompt_cost
                chosen.append(entry)
        for entry in chosen:
            self._mark_taken(flow, entry)
        batch += chosen
        return spent

    def _mark_taken(self, flow: Flow, entry: Entry) -> None:
        entry.taken = True
        flow.tokens -= entry.cost
        self.tokens -= entry.cost
        if entry.group is not None:
            mates = flow.groups[entry.group]
            del mates[entry]
            if not mates:
                del flow.groups[entry.group]
