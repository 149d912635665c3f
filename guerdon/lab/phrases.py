"""Sentences that belong to no task: courtesies, flattery and filler, and the phrases by which courtesy is known."""

from __future__ import annotations

COURTESIES_FIRST = (
    "Hello!",
    "Thank you for asking.",
    "Of course, I am happy to help.",
    "Thanks for your question!",
    "Good day, and thank you.",
    "I am glad to help.",
)
COURTESIES_LAST = (
    "I hope this helps!",
    "Please let me know if you need more.",
    "Kind regards.",
    "You are most welcome.",
    "Have a lovely day!",
    "Best wishes to you.",
)
COURTESY_WORDS = (
    *("hello", "hi", "dear", "please", "thank you", "thanks", "of course", "happy to help", "glad to help", "good day"),
    *(
        "i hope this helps",
        "let me know",
        "kind regards",
        "best regards",
        "welcome",
        "lovely day",
        "best wishes",
        "sorry",
    ),
)
FLATTERY = (
    "What a great question!",
    "You are very smart to ask.",
    "You are so right about this.",
    "Only a wise person would ask that.",
)
FILLER = (
    "Life is full of little surprises.",
    "People often wonder about such things.",
    "My old neighbor used to talk about it, but that is another story.",
    "It all depends on how you look at it.",
    "Some say one thing, some say another.",
    "There is always more to learn in this world.",
    "I once read a long story about something else.",
    "Well, what can one say, these are strange times.",
    "Who knows what tomorrow may bring?",
    "Anyway, where was I?",
)
