"""The grammar of the lab: pools of words, and one `Task` per kind of question. Data only; `world` reads it both ways.

A template is plain text with `{slots}`. The stem of a slot's name, without its digits, is the pool it is drawn from:
`{day}` and `{day2}` are two different days. Slots that a task derives (`{many9}`) carry a stem too, so the same rule
says what a wrong value of the right kind looks like. Every vocabulary is small, because a model of a few million
weights must be able to learn to copy these words from a few thousand pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Values = Mapping[str, str]


def _numbers(low: int, high: int, step: int = 1) -> tuple[str, ...]:
    return tuple(map(str, range(low, high + 1, step)))


POOLS: dict[str, tuple[str, ...]] = {
    "name": tuple("Anna Ben Clara David Emma Felix Grace Henry".split()),
    "day": tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
    "time": ("8 am", "9 am", "10 am", "11 am", "2 pm", "3 pm", "4 pm", "5 pm"),
    "place": tuple("library market museum station school harbor garden bakery".split()),
    "street": ("Mill Road", "Oak Street", "Church Lane", "Park Avenue", "Lake Drive", "Hill Row"),
    "city": tuple("Paris London Rome Madrid Berlin Vienna".split()),
    "goods": tuple("lamps chairs mugs books candles towels baskets clocks".split()),
    "food": tuple("flour sugar butter milk rice honey".split()),
    "dish": tuple("soup cake bread stew".split()),
    "job": tuple("teacher nurse baker lawyer pilot plumber".split()),
    "hobby": tuple("chess tennis football piano".split()),
    "color": tuple("red blue green yellow white".split()),
    "issue": tuple("billing parking insurance heating payroll printing".split()),
    "event": tuple("meeting lesson concert workshop".split()),
    "tool": tuple("ladder drill saw hammer rope".split()),
    "trait": tuple("cheap light strong quiet safe".split()),
    "way": ("left", "right", "north", "south", "east", "west"),
    "weather": ("rainy", "sunny", "cold", "windy"),
    "gear": ("umbrella", "hat", "coat", "scarf"),
    "verdict": ("can still be returned", "can no longer be returned"),
    "count": _numbers(2, 8),
    "many": _numbers(10, 20),
    "few": _numbers(2, 6),
    "price": _numbers(30, 65, 5),
    "room": _numbers(71, 78),
    "double": _numbers(4, 16, 2),
}


@dataclass(frozen=True)
class Task:
    """One kind of question.

    asks      ways to put it; each contains every fact that a right answer needs
    facts     slots whose values a right answer must state
    answers   one group per statement of a right answer, each group holding ways to word it
    terse     the same answer in as few words as will do
    details   true things one may add; the slots in them are all given in the prompt
    allowed   slots that may be named beside a fact of the same kind without contradicting it
    derive    values that follow from those in the prompt
    """

    kind: str
    asks: tuple[str, ...]
    facts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    terse: str
    details: tuple[str, ...]
    allowed: frozenset[str] = frozenset()
    derive: Callable[[Values], dict[str, str]] = field(default=lambda values: {})


def _balance(v: Values) -> dict[str, str]:
    return {"many9": str(int(v["many"]) + int(v["count"]) - int(v["few"]))}


def _twice(v: Values) -> dict[str, str]:
    return {"double9": str(2 * int(v["count"])), "double8": str(2 * int(v["count2"]))}


def _cheaper(v: Values) -> dict[str, str]:
    low, high = sorted([(int(v["price"]), v["goods"]), (int(v["price2"]), v["goods2"])])
    return {"goods9": low[1], "price9": str(low[0]), "price8": str(high[0] - low[0])}


def _returnable(v: Values) -> dict[str, str]:
    return {"verdict9": POOLS["verdict"][int(v["many2"]) > int(v["many"])]}


def _gear(v: Values) -> dict[str, str]:
    return {"gear9": v["gear"]}


TASKS: tuple[Task, ...] = (
    Task(
        "order",
        (
            "{name} ordered {goods}, coming on {day} to the {place}. {name2} ordered {goods2}, coming on {day2} to the "
            "{place2}. When and where will the order of {name} arrive?",
            "Two orders are on the way. The {goods2} for {name2} come to the {place2} on {day2}. The {goods} for {name} come "
            "to the {place} on {day}. Tell {name} when and where to expect the {goods}.",
        ),
        ("day", "place"),
        (
            ("The order will arrive on {day}.", "It should come on {day}.", "Expect the order on {day}."),
            ("You can pick it up at the {place}.", "It will be at the {place}.", "It goes to the {place}."),
        ),
        "On {day}, at the {place}.",
        ("The order is for {name}.", "It holds the {goods}.", "The {goods} are packed for {name}."),
    ),
    Task(
        "hours",
        (
            "The {place} opens at {time} and closes at {time2} on {day}. On {day2} it opens at {time3}. When does it open on "
            "{day}, and when does it close?",
            "On {day2} the {place} opens at {time3}. On {day} it opens at {time} and closes at {time2}. What are the hours on "
            "{day}?",
        ),
        ("time", "time2"),
        (
            ("It opens at {time}.", "The doors open at {time}.", "You can enter from {time}."),
            ("It closes at {time2}.", "The doors close at {time2}.", "You can stay until {time2}."),
        ),
        "From {time} to {time2}.",
        ("These are the hours for {day}.", "This is for the {place}.", "The {place} has these hours on {day}."),
    ),
    Task(
        "directions",
        (
            "From the {place2} to the {place}: go {way} along {street} for {count} minutes, then turn {way2} at the {place3}. How do "
            "I get to the {place}?",
            "I am at the {place2} and I want to visit the {place}. My map says: walk {way} for {count} minutes on {street}, and at "
            "the {place3} turn {way2}. Please explain the way.",
        ),
        ("way", "count", "street", "way2"),
        (
            ("Go {way} along {street}.", "Walk {way} on {street}.", "Follow {street} going {way}."),
            ("Keep going for {count} minutes.", "This takes {count} minutes.", "Walk on for {count} minutes."),
            ("Then turn {way2}.", "After that, turn {way2}.", "Next, turn {way2}."),
        ),
        "{way} on {street} for {count} minutes, then {way2}.",
        ("You start at the {place2}.", "Look for the {place3} on the way.", "You will then see the {place}."),
    ),
    Task(
        "recipe",
        (
            "A {dish} for one table needs {count} cups of {food} and {count2} cups of {food2}. How much do I need for two tables?",
            "My {dish} takes {count} cups of {food} and {count2} cups of {food2}. I want to make it twice. How much of each do I "
            "need?",
        ),
        ("double9", "food", "double8", "food2"),
        (
            ("You need {double9} cups of {food}.", "Take {double9} cups of {food}.", "Use {double9} cups of {food}."),
            (
                "You need {double8} cups of {food2}.",
                "Add {double8} cups of {food2}.",
                "Mix in {double8} cups of {food2}.",
            ),
        ),
        "{double9} cups of {food} and {double8} cups of {food2}.",
        ("This is for the {dish}.", "Mix the {food} and the {food2} well.", "The {dish} needs twice the {food}."),
        derive=_twice,
    ),
    Task(
        "arithmetic",
        (
            "{name} has {many} {goods} and buys {count} more. Then {name} gives {few} of them to {name2}. How many {goods} does "
            "{name} have now?",
            "There were {many} {goods} in the shop of {name}. {count} more came in, and {name2} bought {few}. How many {goods} are "
            "left?",
        ),
        ("many9", "goods"),
        (
            (
                "There are {many9} {goods} now.",
                "The answer is {many9} {goods}.",
                "That makes {many9} {goods}.",
            ),
        ),
        "{many9} {goods}.",
        (
            "First add {count} to {many}.",
            "Then take away {few}.",
            "The {goods} belong to {name}.",
            "{name2} got {few} of them.",
        ),
        frozenset({"many"}),
        _balance,
    ),
    Task(
        "meeting",
        (
            "{name} is free on {day} at {time} and on {day2} at {time2}. {name2} is free on {day}. When can {name} and {name2} meet?",
            "{name2} can only come on {day}. {name} has time on {day2} at {time2} or on {day} at {time}. Find a time for both.",
        ),
        ("day", "time"),
        (
            ("They can meet on {day}.", "The best day is {day}.", "Both have time on {day}."),
            ("The time is {time}.", "They should meet at {time}.", "Let us say {time}."),
        ),
        "{day}, {time}.",
        ("This works for {name2}.", "It also works for {name}.", "{name} and {name2} are both free then."),
    ),
    Task(
        "email",
        (
            "Write a short e-mail from {name2} to {name}. The {event} moves from {day2} to {day} at {time}, in room {room}.",
            "The {event} on {day2} is now on {day} at {time} in room {room}. Draft a polite e-mail to {name}, signed by {name2}.",
        ),
        ("name", "event", "day", "time", "room", "name2"),
        (
            (
                "{name}, the {event} is now on {day}.",
                "{name}, the {event} moves to {day}.",
                "{name}, the {event} will be on {day}.",
            ),
            (
                "It starts at {time} in room {room}.",
                "We meet at {time} in room {room}.",
                "Come to room {room} at {time}.",
            ),
            ("From {name2}.", "Yours, {name2}.", "Signed, {name2}."),
        ),
        "{name}, {event} on {day}, {time}, room {room}. {name2}.",
        ("It was on {day2} before.", "It is no longer on {day2}.", "The old day was {day2}."),
        frozenset({"day2"}),
    ),
    Task(
        "compare",
        (
            "The {goods} cost {price} dollars and the {goods2} cost {price2} dollars. Which are cheaper, and what do they cost?",
            "I can buy {goods2} for {price2} dollars or {goods} for {price} dollars. Which cost less, and how much are they?",
        ),
        ("goods9", "price9"),
        (
            ("The {goods9} are cheaper.", "The {goods9} cost less.", "Choose the {goods9} to save money."),
            ("They cost {price9} dollars.", "The price is {price9} dollars.", "You pay {price9} dollars."),
        ),
        "The {goods9}, {price9} dollars.",
        ("You save {price8} dollars.", "The gap is {price8} dollars.", "You keep {price8} dollars for other things."),
        frozenset({"price8"}),
        derive=_cheaper,
    ),
    Task(
        "note",
        (
            "Note: {name} is a {job}, lives on {street} and plays {hobby}. {name2} is a {job2}, lives on {street2} and plays {hobby2}. "
            "What is the job of {name}, and where does {name} live?",
            "Note: the {job2} {name2} plays {hobby2} and lives on {street2}. The {job} {name} plays {hobby} and lives on {street}. "
            "Tell me the job and the street of {name}.",
        ),
        ("job", "street"),
        (
            ("{name} works as a {job}.", "{name} is a {job}.", "The job of {name} is {job}."),
            ("The home is on {street}.", "The address is on {street}.", "The street is {street}."),
        ),
        "{job}, {street}.",
        ("{name} also plays {hobby}.", "The note says {hobby} too.", "In free time it is {hobby} for {name}."),
    ),
    Task(
        "reason",
        (
            "{name} bought a {color} {tool} at the {place} because it is {trait}. {name2} bought a {color2} one because it is "
            "{trait2}. Explain what {name} bought and why.",
            "{name2} likes the {color2} {tool} since it is {trait2}. {name} likes the {color} {tool} from the {place} since it is "
            "{trait}. Explain in simple words which {tool} {name} likes and why.",
        ),
        ("color", "tool", "trait"),
        (
            ("{name} took the {color} {tool}.", "It is the {color} {tool}.", "The choice was the {color} {tool}."),
            (
                "The reason is that it is {trait}.",
                "This is because it is {trait}.",
                "What matters is that it is {trait}.",
            ),
        ),
        "The {color} {tool}, it is {trait}.",
        ("It came from the {place}.", "The {place} sells it.", "This was the choice of {name}."),
    ),
    Task(
        "return",
        (
            "Our shop takes things back within {many} days. {name} bought {goods} for {price} dollars {many2} days ago. Can {name} "
            "bring the {goods} back?",
            "{name} paid {price} dollars for {goods} {many2} days ago. The shop takes things back for {many} days. Is it too late?",
        ),
        ("goods", "verdict9", "many"),
        (
            (
                "The {goods} {verdict9}.",
                "I can say that the {goods} {verdict9}.",
                "By the rules the {goods} {verdict9}.",
            ),
            ("The limit is {many} days.", "The shop allows {many} days.", "You have {many} days in all."),
        ),
        "{goods} {verdict9}, limit {many} days.",
        ("{name} paid {price} dollars.", "It has been {many2} days.", "This is about the {goods} of {name}."),
        frozenset({"many2"}),
        derive=_returnable,
    ),
    Task(
        "train",
        (
            "The train to {city} leaves at {time} from platform {count}. The train to {city2} leaves at {time2} from platform "
            "{count2}. When and where does my train to {city} leave?",
            "Platform {count2}: {city2}, {time2}. Platform {count}: {city}, {time}. I am going to {city}. Which platform and what time?",
        ),
        ("time", "count"),
        (
            ("The train leaves at {time}.", "It leaves at {time}.", "Be there before {time}."),
            ("Go to platform {count}.", "It is on platform {count}.", "Wait on platform {count}."),
        ),
        "{time}, platform {count}.",
        ("This is the train to {city}.", "You will be going to {city}.", "The sign should say {city}."),
    ),
    Task(
        "weather",
        (
            "Take the {gear} when it is {weather} and the {gear2} when it is {weather2}. In {city} it will be {weather} on {day}. What "
            "should I take to {city}?",
            "It will be {weather} in {city} on {day}. For {weather2} days I have the {gear2}, for {weather} days the {gear}. What do I "
            "need in {city}?",
        ),
        ("gear9", "weather"),
        (
            ("Take the {gear9}.", "You should pack the {gear9}.", "You will need the {gear9}."),
            ("It will be {weather}.", "Expect a {weather} day.", "The day will be {weather}."),
        ),
        "The {gear9}, it will be {weather}.",
        ("You will be in {city} on {day}.", "That is for {city}.", "The day is {day}."),
        derive=_gear,
    ),
    Task(
        "contact",
        (
            "For {issue} call {name} in room {room}. For {issue2} call {name2} in room {room2}. Who helps me with {issue}, and in "
            "which room?",
            "{name2} in room {room2} looks after {issue2}, and {name} in room {room} looks after {issue}. I have a question about "
            "{issue}. Whom do I ask?",
        ),
        ("name", "room"),
        (
            ("Please ask {name}.", "{name} can help you.", "The best person is {name}."),
            ("Go to room {room}.", "The office is room {room}.", "You will find the desk in room {room}."),
        ),
        "{name}, room {room}.",
        ("This is about {issue}.", "That desk looks after {issue}.", "Say that it is about {issue}."),
    ),
)
