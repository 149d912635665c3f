"""Frozen dataclasses as the options of a command: the names of their flags, and YAML files with the same names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from guerdon.types import ConfigError

Options = TypeVar("Options")


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def gathered(args: Sequence[str], options: Any) -> list[str]:
    """Arguments in which `--reward a --reward b` has become `--reward a b`, for every list among the options.

    `options` is a dataclass or a function with written-out annotations. Without this the last of them would win, unsaid.
    """
    lists = {flag(name) for name, kind in options.__annotations__.items() if "tuple[" in str(kind)}
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    values = rest
    for word in args:
        name, equals, value = word.partition("=")
        if name in lists:
            values = found.setdefault(name, [])
            values += [value] if equals else []
            continue
        if word.startswith("--"):
            values = rest
        values.append(word)
    return rest + [word for name, given in found.items() for word in (name, *given)]


def from_yaml(cls: type[Options], path: str | Path) -> Options:
    """Options from a YAML file whose keys are the field names (dashes allowed). Raises ConfigError, naming the key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, found a {type(raw).__name__}")
    hints = get_type_hints(cls)
    known = {field.name: hints[field.name] for field in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"{path}: there is no option '{key}'{hint}")
        values[name] = _coerce(str(path), name, known[name], value)
    return cls(**values)


def to_yaml(options: Any) -> str:
    """Resolved options as YAML; `from_yaml` reads it back to an equal object."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def resumed(options: Options, saved: Options, free: Collection[str], output: str | Path) -> Options:
    """The options that a run in `output` was started with, those named `free` and `output` itself as given now: the folder may
    have been moved, or be spelt in another way.

    What is None now is left open. Raises ConfigError when anything else differs: a run goes on as it began.
    """
    free = {*free, "output"}
    old, new = asdict(saved), asdict(options)  # type: ignore[call-overload]
    changed = [name for name in new if name not in free and new[name] is not None and new[name] != old[name]]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"{output}: was started with {flag(name)} {old[name]}, not {new[name]}; "
            f"resume with the same options ({len(changed)} differ), or choose another --output"
        )
    return replace(saved, **{name: new[name] for name in free})  # type: ignore[type-var]


def _coerce(path: str, name: str, kind: Any, value: Any) -> Any:
    """YAML scalars to the field's type: a single string for a list field, 1e-5 (a string in YAML 1.1) for a number."""
    if get_origin(kind) is tuple:
        values = [value] if isinstance(value, str) else value or []
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise ConfigError(f"{path}: {name} must be a text or a list of texts, got {value!r}")
        return tuple(values)
    kinds = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
    if value is None:
        if NoneType in kinds:
            return None
        raise ConfigError(f"{path}: {name} has no value")
    wanted = next(one for one in kinds if one is not NoneType)
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ConfigError(f"{path}: {name} must be one of {', '.join(get_args(wanted))}, got {value!r}")
        return value
    if wanted is bool and not isinstance(value, bool):
        raise ConfigError(f"{path}: {name} must be true or false, got {value!r}")
    try:
        coerced = wanted(value)
        is_whole = wanted is not int or coerced == float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{path}: {name} must be a {wanted.__name__}, got {value!r}") from None
    if not is_whole:
        raise ConfigError(f"{path}: {name} must be a whole number, got {value!r}")
    return coerced
