"""The command line: finds the command, reads its options, and turns errors a user can mend into one sentence.

Each command is a function of its own in `guerdon/commands/`, in the file of its name.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import tyro

from guerdon.types import ConfigError, GuerdonError

# What a command is called, where it lives, and what it does; in the order of the work.
COMMANDS = {
    "check": ("check", "say what is in a file, folder or hub set of comparisons, and what is wrong with it"),
    "train": ("train", "train a reward model on comparisons"),
    "evaluate": ("evaluate", "measure a reward model on held-out comparisons, with intervals and baselines"),
    "compare": ("compare", "compare models on the same comparisons: which differences are real, who shares a rank"),
    "benchmark": ("benchmark", "run a published benchmark by its official rule, on a model or a file of scores"),
    "score": ("score", "score prompts with one or many answers each, resumable, in constant memory"),
    "serve": (
        "serve",
        "serve reward models over HTTP, with their contracts enforced, in the dialects of their callers",
    ),
    "serve-key": ("serve_key", "make, list and remove the API keys of a reward server"),
    "collect create": ("collect_create", "make a study: a place where people say which answer is better"),
    "collect import": ("collect_import", "add prompts with candidate answers to a study"),
    "collect generate": ("collect_generate", "have prompts answered by models, as questions of a study"),
    "collect user": ("collect_user", "add, list, close and open accounts of a study's web application"),
    "collect start": ("collect_start", "serve the web application: raters answer, leads watch"),
    "collect rate": ("collect_rate", "let a model judge a study, in both orders, as a rater of its own kind"),
    "collect quality": ("collect_quality", "how good the labels are: agreement, raters in doubt, the ceiling"),
    "collect prioritise": (
        "collect_prioritise",
        "rank the open questions by what a reward model would learn from them",
    ),
    "collect export": (
        "collect_export",
        "write judgements or labels in our own and other formats, exactly or not at all",
    ),
    "collect backup": ("collect_backup", "copy the database of all studies, checked, while raters work"),
    "optimize sft": ("sft", "fine-tune a policy on chosen answers or completions: something to start from"),
    "optimize ppo": ("ppo", "train a policy against the frozen reward by PPO, watched for over-optimisation"),
    "optimize rloo": ("rloo", "the same by REINFORCE with a leave-one-out baseline"),
    "optimize grpo": ("grpo", "the same by group-relative advantages, with Dr. GRPO, DAPO and GSPO as losses"),
    "optimize best-of-n": ("best_of_n", "sample or take n answers to each prompt and keep what the reward picks"),
    "optimize rejection": (
        "rejection",
        "sample, keep what the reward picks, fine-tune on it; with a random-choice control",
    ),
    "optimize dpo": ("dpo", "fine-tune a policy on comparisons directly (DPO, through TRL)"),
    "diagnose probes": ("probes", "find what a reward model can be gamed with, by edits that need no model"),
    "diagnose overopt": ("overopt", "what optimising a reward does to gold, from a pool of scored answers"),
    "diagnose drift": ("drift", "say whether a policy's answers are still where the reward model was trained"),
    "diagnose run": ("run", "one page on a policy run, or several beside each other: what happened, what to do"),
    "diagnose report": ("report", "everything known about a run in one page, and its model card"),
    "demo": ("demo", "the whole path on a simulated world, offline, in minutes"),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors a user can mend are one sentence on stderr and exit status 2."""
    args = sys.argv[1:] if arguments is None else arguments
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return
    if args[0] == "--version":
        from guerdon import __version__

        print(f"guerdon {__version__}")
        return
    try:
        dispatch(args)
    except GuerdonError as error:
        _stop(str(error))
    except MemoryError:
        _stop("out of memory; lower --tokens-per-row (training) or --batch (scoring)")
    except OSError as error:  # a full disk, a missing right: what and where is all a user needs
        _stop(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        _stop("interrupted", 130)


def overview(group: str = "") -> str:
    """All commands, or those of one group, a line each."""
    names = [name for name in COMMANDS if name.startswith(group)]
    width = max(map(len, names))
    lines = "".join(f"  {name:<{width}}  {COMMANDS[name][1]}\n" for name in names)
    return f"""usage: guerdon {group}COMMAND [OPTIONS]

Guerdon turns human comparisons into a reward that can be trusted.

commands, in the order of the work:
{lines}
`guerdon COMMAND --help` explains the options of a command; `guerdon --version` prints the version.
"""


def dispatch(args: list[str]) -> None:
    """Run the command that the first words name. Raises ConfigError when there is none."""
    words = 2 if any(name.startswith(f"{args[0]} ") for name in COMMANDS) else 1
    name = " ".join(args[:words])
    if words == 2 and (len(args) == 1 or args[1] in ("-h", "--help")):
        print(overview(f"{args[0]} "), end="")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command '{name}'" + (f"; did you mean {close[0]}?" if close else "; see guerdon --help")
        )
    module = importlib.import_module(f"guerdon.commands.{COMMANDS[name][0]}")
    command: Callable[..., Any] = getattr(module, COMMANDS[name][0])
    if hasattr(module, "parse"):  # its options come from a file as well
        command(module.parse(args[words:]))
        return
    from guerdon.options import gathered

    tyro.cli(command, prog=f"guerdon {name}", args=gathered(args[words:], command))


def _stop(message: str, status: int = 2) -> None:
    print(f"guerdon: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
