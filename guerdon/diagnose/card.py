"""The model card: Markdown that travels with the weights, so that nobody has to ask what this reward was made of.

In: the run's record and config, its evaluation, the advice drawn from it, and probe results where they were measured.
Out: one Markdown text with the front matter that model hubs read. Nothing in it is written by hand or guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guerdon.diagnose.advice import Advice
from guerdon.evaluate.metrics import Evaluation

TAGS = ("reward-model", "preference", "rlhf", "guerdon")


@dataclass(frozen=True)
class ProbeLine:
    """One probe as the card shows it: effect and its interval in reward standard deviations, and the verdict."""

    name: str
    effect: float
    low: float
    high: float
    verdict: str


def model_card(
    *,
    name: str,
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    facts: Mapping[str, str],
    evaluation: Evaluation | None = None,
    evaluated_on: str = "held-out prompts",
    ceiling: tuple[float, float] | None = None,
    advice: Sequence[Advice] = (),
    probes: Sequence[ProbeLine] = (),
) -> str:
    """The card as Markdown.

    name        what the model is called
    config      the resolved options of the run (`config.yaml`)
    record      what went in and came out (`run.json`)
    facts       how a conversation is scored: context, template, contract, members
    evaluation  on held-out comparisons; None when nothing was held out. `evaluated_on` names them
    ceiling     (low, high) of what label noise allows, as shares
    advice      what the numbers ask for; its warnings are the known weaknesses
    probes      counterfactual probes, if they were run
    """
    parts = [
        _front(config),
        f"# {name}\n",
        "A reward model: it reads a prompt and an answer and returns one number, higher for answers that people would "
        "rather have. Only differences between answers to the same prompt carry meaning.\n",
        *_usage(),
        *_table("How it scores", facts),
        *_data(config, record),
        *_training(config, record),
        *_evaluation(evaluation, evaluated_on, ceiling),
        *_probes(probes),
        *_weaknesses(advice, probes, evaluation),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front(config: Mapping[str, Any]) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    base = str(config.get("model", ""))
    if base.count("/") == 1 and not base.startswith((".", "/", "~")):
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in TAGS), "---", ""])


def _usage() -> Iterator[str]:
    yield "## Use\n"
    yield (
        "```python\nimport guerdon\n\n"
        'model = guerdon.RewardModel.load("PATH")  # refuses to run when it would score differently than here\n'
        'chat = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]\n'
        "score = model.score([chat])[0]\n```\n"
    )
    yield (
        "The same number with transformers alone:\n\n"
        "```python\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'net = AutoModelForSequenceClassification.from_pretrained("PATH").eval()\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
        'inputs = tokenizer.apply_chat_template([chat], return_tensors="pt", return_dict=True)\n'
        "score = net(**inputs).logits[0, 0]\n```\n"
    )


def _data(config: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    manifest = record.get("data", {})
    rows = []
    for part, paths in (("train", config.get("data")), ("eval", config.get("eval_data"))):
        found = manifest.get(part)
        if not found:
            continue
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in found.get("dropped", {}).items()) or "none"
        used = found.get("used", found.get("comparisons", 0))
        sources = ", ".join(f"{source} {count:,}" for source, count in found.get("sources", {}).items()) or "unnamed"
        files = ", ".join(str(path) for path in paths or ())
        rows.append((part, files, f"{found.get('rows', 0):,}", f"{used:,}", dropped, sources))
    yield "## Data\n"
    yield from _grid(("part", "files", "rows", "comparisons used", "kept out", "sources"), rows)
    encoding = record.get("encoding", {})
    if encoding:
        cut, total = encoding.get("truncated", 0), max(1, encoding.get("conversations", 0))
        yield (
            f"{cut:,} of {total:,} training conversations ({100 * cut / total:.1f} %) were cut to the context. "
            f"{manifest.get('held_out', 0):,} comparisons were held out; "
            + ("no prompt is on both sides.\n" if not manifest.get("prompts_in_both") else
               f"**{manifest['prompts_in_both']:,} prompts are also in the training data.**\n")
        )  # fmt: skip


def _training(config: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    names: tuple[str, ...] = (
        "model",
        "epochs",
        "batch_size",
        "learning_rate",
        "schedule",
        "max_length",
        "margin",
        "center",
    )
    names += ("label_smoothing", "ties", "ensemble", "lora", "precision", "seed")
    rows = {name: str(config[name]) for name in names if name in config}
    rows["steps"] = f"{record.get('steps', 0):,} (weights of step {record.get('best_step', 0):,} kept)"
    rows["versions"] = ", ".join(f"{key} {value}" for key, value in record.get("versions", {}).items())
    yield from _table("Training", rows)


def _evaluation(e: Evaluation | None, on: str, ceiling: tuple[float, float] | None) -> Iterator[str]:
    yield "## Evaluation\n"
    if e is None or not e.n:
        yield "Nothing was held out, so nothing is known about how good it is on new prompts.\n"
        return
    yield f"On {on}:\n"
    interval = "–" if math.isnan(e.accuracy_low) else f"{100 * e.accuracy_low:.1f} to {100 * e.accuracy_high:.1f} %"
    rows = [
        ("accuracy", f"{100 * e.accuracy:.1f} %", f"95 % interval {interval}, over {e.prompts:,} prompts"),
        ("longer answer wins", f"{100 * e.longer_wins:.1f} %", "what always picking the longer answer gets"),
        ("NLL", f"{e.nll:.3f}", "nats per pair; a coin has 0.693"),
        ("ECE", f"{e.ece:.3f}", "calibration error; 0 is calibrated"),
        ("pairs", f"{e.n:,}", f"{e.ties:,} tied labels and {e.unscored:,} unscored pairs left out"),
    ]
    if ceiling is not None:
        low, high = (f"{100 * bound:.1f}" for bound in ceiling)
        text = f"{high} %" if low == high else f"{low} to {high} %"
        rows.insert(1, ("ceiling", text, "the best that the noise of these labels allows"))
    yield from _grid(("metric", "value", "meaning"), rows)


def _probes(probes: Sequence[ProbeLine]) -> Iterator[str]:
    if not probes:
        return
    yield "## Probes\n"
    yield (
        "Each probe edits an answer in one way that should not be rewarded. Effect: change of the reward, in standard "
        "deviations of natural answers.\n"
    )
    rows = [(p.name, f"{p.effect:+.2f}", f"{p.low:+.2f} to {p.high:+.2f}", p.verdict) for p in probes]
    yield from _grid(("probe", "effect", "95 % interval", "verdict"), rows)


def _weaknesses(advice: Sequence[Advice], probes: Sequence[ProbeLine], e: Evaluation | None) -> Iterator[str]:
    found = [item.text for item in advice if item.is_warning]
    found += [
        f"Biased under the probe `{p.name}` ({p.effect:+.2f} reward standard deviations)."
        for p in probes
        if p.verdict == "biased"
    ]
    if not probes:
        found.append(
            "Not probed for biases (length, format, sycophancy, ...); run `guerdon diagnose probes` before optimising against it."
        )
    if e is not None and e.n:
        found.append("Measured on prompts like those it was trained on. It says little about answers of another policy; "
                     "run `guerdon diagnose drift` on them.")  # fmt: skip
    yield "## Known weaknesses\n"
    yield from (f"- {text}" for text in found)


def _table(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield from _grid(("", ""), list(rows.items()))


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"
    yield ""


def _cell(text: str) -> str:
    """A text that cannot break out of its cell."""
    return " ".join(str(text).replace("|", "\\|").split())
