"""Hides words by which a model gives itself away before anybody judges its answer, and says what was hidden.

Three rules, from the surest to the most careful:

self    a model or maker named where the text speaks of itself: "I am Claude", "my name is Bard", "As Gemini, I cannot ...",
        "a language model trained by Google"; here even words of everyday life are hidden, because of the place they stand in
name    names that can mean nothing else: ChatGPT, GPT-4, Claude 3.5 Sonnet, Llama-2-70b-chat, Qwen2.5, OpenAI; not when the
        prompt itself speaks of that name, which then is the subject, and not in code or addresses
word    words that the study lists for itself, anywhere

Everything else stays: Claude Monet, the star sign Gemini, Google as a search engine, a herd of llamas. One mark stands for
every name, so that two answers do not differ by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Rule = Literal["self", "name", "word"]
MARK = "[hidden]"

_VERSION = r"(?:[-\s]?v?\d+(?:\.\d+)*[a-z]?\b)"
_SIZE = r"(?:[-\s]?\d+(?:\.\d+)?\s?[bB]\b)"
_TAIL = (
    r"(?:[-\s](?:turbo|mini|nano|micro|pro|ultra|flash|lite|max|plus|preview|instruct|instant|chat|hf|vision|large|medium|small|"
    r"sonnet|opus|haiku|coder|math|thinking|reasoner|(?:x?\d+(?:\.\d+)*[bk]?)|v\d+(?:\.\d+)*)\b)*"
)

# Names that mean nothing but a model or its maker. Regular expressions, case ignored unless written `(?-i:...)`.
DISTINCT: tuple[str, ...] = (
    rf"(?:chat[\s-]?)?gpt[-\s]?(?:[2-9](?:\.\d)?o?\b|j\b|neo(?:x)?\b){_TAIL}",
    rf"chat[\s-]?gpt{_TAIL}",
    r"instruct[\s-]?gpt",
    r"text-(?:davinci|curie|babbage|ada)-\d+",
    r"(?-i:o[134]-(?:mini|preview|pro)\b)",
    rf"(?-i:Claude|claude){_VERSION}{_TAIL}",
    r"(?-i:Claude|claude)[-\s](?:instant|opus|sonnet|haiku)\b" + _TAIL,
    rf"(?:code[\s-]?|meta[\s-])?(?-i:LLaMA|LLAMA|Llama|llama)-?(?:[234](?:\.\d)?\b){_TAIL}",
    r"(?-i:LLaMA)\b" + _TAIL,
    rf"(?:code|meta)[\s-](?-i:Llama|LLaMA|llama)\b{_TAIL}",
    rf"(?-i:Gemini|gemini)[-\s](?:\d\.\d\b|(?:\d\s)?(?:pro|ultra|flash|nano|advanced)\b){_TAIL}",
    rf"gemma[-\s]?\d{_TAIL}",
    r"(?-i:PaLM)(?:[-\s]?2\b)?",
    r"google\s(?:bard|gemini)\b",
    r"bing\schat\b",
    rf"(?:vicuna|wizardlm|mixtral|chatglm|baichuan|internlm|qwen|qwq|deepseek|hunyuan|nemotron|olmo|stablelm|openchat|starling-lm|openhermes|nous-hermes|guanaco(?=[-\s]?\d)|tulu(?=[-\s]?\d)|zephyr(?=[-\s]?\d+b)|koala(?=[-\s]?\d+b)|alpaca(?=[-\s]?\d+b)|falcon(?=[-\s]?\d+b)|mpt(?=[-\s]?\d+b)|dolly(?=[-\s]?v\d)|yi(?=-\d+b)|phi(?=-[1-4])|orca(?=-\d+b)|solar(?=-\d+)|pythia(?=-\d+)){_VERSION}?{_SIZE}?{_TAIL}",
    rf"(?-i:Mistral|mistral|Ministral)[-\s](?:\d+b|ai|nemo|large|medium|small)\b{_TAIL}",
    r"(?-i:Grok)(?:[-\s]\d(?:\.\d)?\b|,? (?:by|from) xAI)",
    r"command[\s-]r\+?(?![\w])",
    r"ernie[\s-](?:bot|\d\.\d)\b",
    r"open[\s-]?assistant(?:'s)?\b",
)

# Names that are words of everyday life or of people: hidden only where the text speaks of itself.
AMBIGUOUS: tuple[str, ...] = (
    r"(?-i:Claude|Gemini|Bard|Llama|Alpaca|Koala|Falcon|Dolly|Guanaco|Zephyr|Mistral|Grok|Copilot|Bing|Sydney|Gemma|Phi|Orca|Tulu|Kimi|Doubao|Ernie|Nova|Titan|Pi|Yi|Solar|Jamba|Luminous|Aya|BLOOM|Bloom|Cortana|Alexa|Siri|Assistant by \w+)",
)
MAKERS: tuple[str, ...] = (
    r"(?-i:OpenAI|Openai|openai|Open AI|OPENAI)(?:'s)?",
    r"(?-i:Anthropic|DeepMind|xAI|LMSYS|EleutherAI|LAION|MosaicML|DeepSeek)(?:'s)?",
    r"(?:large model systems organi[sz]ation)(?:\s\(lmsys\))?",
    r"(?-i:Moonshot AI|Zhipu AI|Stability AI|Mistral AI|Nous Research|Alibaba Cloud|AI21 Labs|01\.AI)",
    r"(?-i:Google(?:\sAI|\sBrain|\sResearch)?|Meta(?:\sAI)?|Facebook(?:\sAI)?|Microsoft|Amazon|Apple|IBM|NVIDIA|Nvidia|Alibaba|Baidu|Tencent|ByteDance|Cohere|Mistral|Databricks|Together(?:\sAI)?|Hugging\s?Face|Salesforce|Inflection(?:\sAI)?|Reka|MiniMax|Moonshot|Zhipu|Tsinghua(?:\sUniversity)?|Stanford(?:\sUniversity)?|BigScience|Technology Innovation Institute|TII|Allen Institute for (?:AI|Artificial Intelligence)|Ai2|AI2|Shanghai AI Lab(?:oratory)?|Character\.AI|You\.com|Perplexity|Adept|Huawei|Samsung|Yandex|Naver|Upstage)",
)

_KIND = r"(?:AI|language|large|virtual|digital|conversational|chat|chatbot|bot|model|assistant|program|called|named|known as)"
_LEAD = (
    r"(?:\bI\sam|\bI['’]m|\bmy name is|\bmy name['’]s|\bcall me|\bI\sgo by|\bI\swas named|\bthis is|\bspeaking (?:to|with)|"
    r"\bchatting with|\btalking (?:to|with))"
)
_MADE = (
    r"(?:made|created|developed|trained|built|designed|fine-?tuned|powered|produced|released|owned|operated|maintained|provided|"
    r"hosted|deployed)"
)
_TEAM = r"(?:the\s)?(?:(?:team|researchers|engineers|people|company|folks|developers|scientists)\s(?:at|of|from|behind)\s|company\s)?"
_SELF = (
    r"(?:\bI\s(?:am|was|have been|had been)|\bI['’](?:m|ve been)|\bmy name is|\bmyself|\bas (?:an?|the)\s(?:[\w-]+\s){0,4}"
    r"(?:AI|model|assistant|chatbot|bot)\b|\bas an AI\b)"
)
_OTHER = r"(?:tell|say|know|think|believe|heard|than|like|unlike|while|whereas|but|although|with|asked|using)"
_EDGE, _END = r"(?<![\w./@#-])", r"(?![\w@]|\.\w|-\w)"
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[A-Z]\w+")


class Found(NamedTuple):
    """One hidden word: what stood there, where (character offsets in the text as given), and by which rule."""

    word: str
    start: int
    end: int
    rule: Rule


class Masked(NamedTuple):
    """The text as it may be shown, and what was hidden in it, in order."""

    text: str
    found: tuple[Found, ...]


def mask(text: str, prompt: str = "", words: Sequence[str] = ()) -> Masked:
    """The text with `MARK` in place of every word that tells which model wrote it.

    `prompt` is what the text answers: where it names a model, models are the subject, and only what the text calls itself is
    hidden. `words` are hidden wherever they stand, as whole words, case ignored. Masking a masked text changes nothing.
    """
    spans = [*_listed(text, words)]
    if _may_name(text):
        spans += [*_of_itself(text), *_distinct(text, prompt)]
    chosen: list[Found] = []
    for found in sorted(spans, key=lambda f: (f.start, -f.end)):
        if not chosen or found.start >= chosen[-1].end:
            chosen.append(found)
    parts, at = [], 0
    for found in chosen:
        parts += [text[at : found.start], MARK]
        at = found.end
    return Masked("".join([*parts, text[at:]]), tuple(chosen))


def _may_name(text: str) -> bool:
    """Whether any pattern could match: a fast look that spares most texts the patterns."""
    lower = text.lower()
    return any(root in lower for root in _ROOTS) or not _CAPITALS.isdisjoint(_WORD.findall(text))


def _of_itself(text: str) -> Iterable[Found]:
    """Names and makers by which the text calls itself."""
    for pattern in _self_patterns():
        for match in pattern.finditer(text):
            yield Found(match["name"], match.start("name"), match.end("name"), "self")


def _distinct(text: str, prompt: str) -> Iterable[Found]:
    """Names that can mean nothing but a model, outside code; none where the prompt names a model."""
    matches = list(_names().finditer(text))
    if not matches or _names().search(prompt):
        return
    code = [match.span() for match in _CODE.finditer(text)]
    for match in matches:
        if not any(start <= match.start() < end for start, end in code):
            yield Found(match[0], match.start(), match.end(), "name")


def _listed(text: str, words: Sequence[str]) -> Iterable[Found]:
    for word in filter(str.strip, words):
        for match in re.finditer(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE):
            yield Found(match[0], match.start(), match.end(), "word")


@lru_cache(maxsize=1)
def _names() -> re.Pattern[str]:
    return re.compile(f"{_EDGE}(?:{'|'.join(DISTINCT)}){_END}", re.IGNORECASE)


@lru_cache(maxsize=1)
def _self_patterns() -> tuple[re.Pattern[str], ...]:
    """Patterns with a group `name`, each for one way in which a text says what it is."""
    model = f"(?P<name>{'|'.join((*DISTINCT, *AMBIGUOUS))}){_END}"
    maker = f"(?P<name>{'|'.join((*DISTINCT, *MAKERS))}){_END}"
    patterns = (
        rf"{_LEAD}\s(?:an?\s(?=(?:\w+\s){{0,2}}{_KIND}\b)|(?:the|your|just|also|really|{_KIND})[\s,]+){{0,6}}[\"“*_]*{model}",
        rf"(?:\A|(?<=[.!?\n]\s)|(?<=\n))\s*As\s[\"“*_]*{model},(?=[^.!?\n]*\b(?:I|I['’]m|my|me)\b)",
        rf"\bas\s(?:an?\s)?(?:(?:AI|language|large|virtual|chat|model|assistant|bot|named|called)\s+){{1,5}}{model}",
        rf"\A\s*[*_]*{model}(?=[*_]*:[*_]*\s)",
        rf"\bAs\s(?:{'|'.join((*DISTINCT, *AMBIGUOUS))}),\s{_MADE}\sby\s{_TEAM}{maker}",
        rf"(?:\A|(?<=\n))\W*{model}(?=\shere\b)",
        rf"{_SELF}(?:(?!\b{_OTHER}\b)[^.!?\n]){{0,90}}?\b(?:{_MADE}\s(?:\w+\s){{0,6}}?(?:by|at)|(?:model|AI|assistant|chatbot|product)\s(?:from|by|of))\s{_TEAM}{_EDGE}{maker}",
        rf"{_SELF}(?:(?!\b{_OTHER}\b)[^.!?\n]){{0,60}}?\b(?:based|built|running)\son\s(?:the\s|a\s)?{_EDGE}{maker}",
        rf"{_SELF}(?:(?!\b{_OTHER}\b)[^.!?\n]){{0,60}}?\b(?:based|built|running)\son\s(?:the\s|a\s)?(?:\w+['’]s\s)?{_EDGE}{model}",
        rf"\bmy\s(?:creators?|developers?|makers?|training|team|company)(?:\s\w+){{0,2}}?\s(?:at|is|are|by|from|of)\s{_EDGE}{maker}",
        rf"{_EDGE}{maker}\s(?:has\s|have\s)?(?:{_MADE})\sme\b",
    )
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


# What `_may_name` looks for: a part of every name in lower case, or a whole capitalised word.
_ROOTS = (
    *"gpt davinci-0 curie-0 babbage-0 ada-0 o1- o3- o4- claude llama gemini gemma palm bard vicuna wizardlm mixtral chatglm baichuan "
    "internlm qwen qwq deepseek hunyuan nemotron olmo stablelm openchat starling-lm openhermes hermes guanaco tulu zephyr koala alpaca "
    "falcon mpt- dolly yi- phi- orca- solar- pythia- mistral ministral grok command-r ernie openassistant openai anthropic deepmind "
    "lmsys".split(),
    *("bing chat", "open ai", "command r", "open assistant", "open-assistant", "model systems"),
)
_CAPITALS = frozenset(re.findall(r"[A-Z]\w+", " ".join((*AMBIGUOUS, *MAKERS))))
