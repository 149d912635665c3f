import dataclasses
import random

import pytest

from guerdon.diagnose.probes import wordings
from guerdon.diagnose.probes.catalog import PROBES
from guerdon.diagnose.probes.damage import halves, nonsense
from guerdon.diagnose.probes.edits import Item, sentences
from guerdon.diagnose.probes.neutral import neutral

BY_NAME = {probe.name: probe for probe in PROBES}
TEXTS = {
    "english": "The shop opens at nine. It closes at five, except on Sunday. Ask Anna!",
    "one sentence": "The shop opens at nine.",
    "list": "- one\n- two\n- three",
    "empty": "",
    "blank": " \n ",
    "chinese": "商店九点开门。星期天五点关门！请问安娜。",
    "arabic": "يفتح المتجر في التاسعة. يغلق في الخامسة؟",
    "emoji": "👩‍👩‍👧 🎉🎉",
    "combining": "e\u0301te\u0301 \u202eabc\u202c \ud800",
    "code": "```python\nprint('**bold**')\n```",
    "markup": "**all** # heading\n\n1. one\n2. two",
}


def say(role, text):
    return {"role": role, "content": text}


def item(worse=TEXTS["english"], better="It opens at 9 am. I hope this helps.", asked="When does the shop open?"):
    prompt = (say("user", "Hello."), say("assistant", "Hi."), say("user", asked))
    return Item(prompt, (say("assistant", better),), (say("assistant", worse),), (say("user", "Who is Anna?"),), "seed")


def forms(probe, it):
    return [probe.edit(it, v, w) for v in range(len(probe.variants)) for w in range(max(probe.wordings, 1))]


def texts(contrast):
    return contrast.edited[-1]["content"], contrast.references[0][-1]["content"]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
@pytest.mark.parametrize("name", TEXTS)
def test_every_edit_survives_every_text_and_is_the_same_again(probe, name):
    text = TEXTS[name]
    for it in (item(text, text[::-1]), item(text, text), item("", text), item(asked=text), item(better=text)):
        for bare in (it, dataclasses.replace(it, prompt=()), dataclasses.replace(it, other=())):
            assert forms(probe, bare) == forms(probe, bare)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_an_edit_changes_something_and_only_what_it_may(probe):
    it = item()
    for contrast in forms(probe, it):
        assert contrast is not None
        assert all(contrast.edited != reference for reference in contrast.references)
        assert contrast.edited[:2] == it.prompt[:2] or probe.name == "swapped prompt"
        assert contrast.edited[-1]["role"] == "assistant"
        prompt_changes = probe.name in ("agreement", "belief", "swapped prompt") or probe.family == "identity"
        assert (contrast.edited[:-1] != it.prompt) == prompt_changes


@pytest.mark.parametrize(
    "name",
    [*"padding restating repetition heading flattery agreement confidence hedging echo".split(), "attack prefix"],
)
@pytest.mark.parametrize("text", [TEXTS["english"], TEXTS["chinese"], TEXTS["emoji"]])
def test_what_is_added_leaves_the_answer_whole(name, text):
    for contrast in forms(BY_NAME[name], item(text)):
        edited, reference = texts(contrast)
        assert text in edited
        assert text in reference


@pytest.mark.parametrize("name", [*"flattery agreement confidence hedging echo".split(), "attack prefix"])
def test_placebos_have_the_length_of_what_they_stand_for(name):
    for contrast in forms(BY_NAME[name], item(asked="When, on which days and for how long does the shop open?")):
        edited, reference = texts(contrast)
        assert len(edited) == len(reference) or edited.startswith(": ")


def test_gibberish_stands_in_the_middle_beside_neutral_text_of_its_length():
    (contrast,) = forms(BY_NAME["gibberish"], item(better=TEXTS["english"]))
    edited, reference = texts(contrast)
    assert len(edited) == len(reference)
    before, after = halves(TEXTS["english"])
    for text in (edited, reference):
        assert text.startswith(before + " ")
        assert text.endswith(" " + after)
    junk = nonsense("Grüße 你好", random.Random(0))
    assert set(junk) <= set("grüße你好 ")
    assert len(junk.split()) == 12


@pytest.mark.parametrize("size", [*range(3, 200), 5_000])
def test_neutral_text_has_the_size_asked_for_and_whole_sentences(size):
    text = neutral(size, random.Random(size))
    assert len(text) == size
    assert text.endswith(".")
    assert text[0].isupper()


def test_too_short_for_neutral_text():
    assert [neutral(size, random.Random(0)) for size in (-5, 0, 1, 2)] == ["", "", "", ""]


def test_doses_are_what_they_say():
    text = TEXTS["english"] * 3
    lengths = [len(texts(contrast)[0]) / len(text) for contrast in forms(BY_NAME["padding"], item(text))]
    assert lengths == pytest.approx([1.5, 2, 3], abs=0.02)
    assert [c.edited[-1]["content"].count(text) for c in forms(BY_NAME["repetition"], item(text))] == [2, 4]
    emoji = [texts(c)[0] for c in forms(BY_NAME["emoji"], item())]
    assert sum(emoji[0].count(e) for e in wordings.EMOJI) == 1
    assert sum(emoji[-1].count(e) for e in wordings.EMOJI) == 3


def test_forms_by_hand():
    it = item("It opens at nine. Ask Anna. Bye!")

    def edited(name):
        return BY_NAME[name].edit(it, 0, 0).edited[-1]["content"]

    assert edited("list") == "- It opens at nine.\n- Ask Anna.\n- Bye!"
    assert edited("bold") == "It **opens** at nine. Ask **Anna**. **Bye**!"
    assert edited("heading") == "## Answer\n\nIt opens at nine. Ask Anna. Bye!"
    assert edited("exclamation") == "It opens at nine! Ask Anna! Bye!"
    assert edited("no punctuation") == "It opens at nine Ask Anna Bye"
    assert edited("restating") == "It opens at nine. Ask Anna. Bye!\n\nIn other words: Bye! Ask Anna."
    assert edited("emoji") == "It opens at nine. Ask Anna. Bye! 😀"
    assert edited("echo") == "When does the shop open?\n\nIt opens at nine. Ask Anna. Bye!"
    assert sentences(TEXTS["chinese"]) == ["商店九点开门。", "星期天五点关门！", "请问安娜。"]


def test_edits_that_do_not_apply_say_so():
    assert BY_NAME["list"].edit(item(TEXTS["one sentence"]), 0, 0) is None
    assert BY_NAME["list"].edit(item(TEXTS["list"]), 0, 0) is None
    assert BY_NAME["exclamation"].edit(item("No full stop"), 0, 0) is None
    assert BY_NAME["no punctuation"].edit(item("nothing to take"), 0, 0) is None
    assert BY_NAME["belief"].edit(item("same", "same"), 0, 0) is None
    assert BY_NAME["empty"].edit(item(better=""), 0, 0) is None


def test_the_user_believes_one_answer_or_the_other_in_equally_many_words():
    contrast = BY_NAME["belief"].edit(item(worse="The shop opens at ten today.", better="It opens at nine."), 0, 0)
    own, other = contrast.edited[-2]["content"], contrast.references[0][-2]["content"]
    assert own == "When does the shop open? I believe the answer is this: The shop opens at"
    assert other == "When does the shop open? I believe the answer is this: It opens at nine."
    assert contrast.edited[-1] == contrast.references[0][-1]
    rival, reference_rival = contrast.rivals
    assert (rival[-2]["content"], reference_rival[-2]["content"]) == (own, other)
    assert rival[-1]["content"] == "It opens at nine."


def test_each_group_is_compared_with_all_the_others():
    probe = BY_NAME["identity: gender"]
    asked = [probe.edit(item(), v, 0).edited[-2]["content"] for v in range(3)]
    assert asked[0] == "I am a woman. When does the shop open?"
    contrast = probe.edit(item(), 1, 0)
    assert [c[-2]["content"] for c in contrast.references] == [asked[0], asked[2]]


def test_wordings_are_a_dozen_different_ones():
    for name in ("FLATTERY", "AGREEMENT", "BELIEFS", "CONFIDENCE", "HEDGES", "RESTATING", "HEADINGS", "EMOJI"):
        phrases = getattr(wordings, name)
        assert len(phrases) == len(set(phrases)) == 12
    assert all("!" not in phrase for phrase in (*wordings.FLATTERY, *wordings.AGREEMENT, *wordings.CONFIDENCE))
