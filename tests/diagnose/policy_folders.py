"""Run folders written by hand, as `guerdon optimize` leaves them, with numbers that a reader can check."""

from __future__ import annotations

import json
from pathlib import Path


def sample(step, group, completion, reward, held_out=None, members=(), **other):
    """A row of samples.jsonl."""
    row = {
        "step": step,
        "group": group,
        "prompt": [{"role": "user", "content": f"question {group}"}],
        "completion": completion,
        "reward": reward,
        "status": "ok" if reward is not None else "error",
        "reason": "" if reward is not None else "the server said 503",
        "parts": {},
        "members": list(members),
        "held_out": held_out,
        "kl": 0.25 * step,
        "tokens": 7,
        "finished": True,
    }
    return row | other


def metrics(step, **other):
    """A row of metrics.jsonl: reward 0.1 x step, held-out 0.5 + 0.01 x step, KL step / 4."""
    row = {
        "step": step,
        "samples": 4 * step,
        "proxy": 0.1 * step,
        "proxy_std": 2.0,
        "within_std": 1.0,
        "held_out": 0.5 + 0.01 * step,
        "held_out_n": 4,
        "held_out_std": 0.5,
        "kl": step / 4,
        "kl_per_token": step / 28,
        "sqrt_kl": (step / 4) ** 0.5,
        "beta": 0.05,
        "length": 7.0,
        "eos_rate": 1.0,
        "repetition": 0.0,
        "list_rate": 0.25,
        "bold_rate": 0.0,
        "entropy": 0.7,
        "disagreement": None,
        "drift": None,
        "masked": 0,
        "status": "ok",
        "reason": "Held-out follows the proxy.",
        "best_step": step,
        "peak_kl": None,
        "rollout_s": 1.0,
        "score_s": 0.5,
        "update_s": 2.0,
        "seconds": 3.5,
        "samples_per_s": 1.1,
    }
    return row | other


def write_run(folder: Path, rows, samples=(), saved_step=None, **config) -> Path:
    folder.mkdir(parents=True)
    for name, stream in (("metrics.jsonl", rows), ("samples.jsonl", samples)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in stream), encoding="utf-8")
    options = {"algorithm": "ppo", "steps": 40, "beta": 0.05, "max_new_tokens": 64, "reward": ["rm"]} | config
    (folder / "config.yaml").write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
    if saved_step is not None:
        (folder / "run.json").write_text(json.dumps({"steps": len(rows), "saved_step": saved_step}), encoding="utf-8")
    return folder
