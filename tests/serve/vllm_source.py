"""vLLM's own request and reply classes, out of an unpacked source distribution, with the rest of vLLM left out.

Six files of it define them; whatever they import from elsewhere in vLLM is a mock or a plain type. No GPU, no build.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

_POOLING = "vllm.entrypoints.pooling"
_FILES = (
    "vllm.entrypoints.serve.engine.protocol", f"{_POOLING}.base.protocol", f"{_POOLING}.scoring.typing",
    f"{_POOLING}.classify.protocol", f"{_POOLING}.pooling.protocol", f"{_POOLING}.scoring.protocol",
)  # fmt: skip
_PART = "ChatCompletionContentPart{}Param"
_PLAIN = {
    "vllm.utils": {"random_uuid": lambda: uuid.uuid4().hex},
    "vllm.utils.serial_utils": {"EmbedDType": str, "EncodingFormat": str, "Endianness": str},
    "vllm.tasks": {"PoolingTask": str, "check_removed_pooling_task": lambda task: None},
    "vllm.exceptions": {"VLLMValidationError": ValueError},
    "vllm.entrypoints.generate.base.protocol": {"validate_cache_salt": lambda salt: None},
    "vllm.renderers.chat_utils": {_PART.format(kind): dict for kind in ("Image", "ImageEmbeds", "Text", "Video")}
    | {"ChatCompletionMessageParam": dict, "ChatTemplateContentFormatOption": str, "normalize_reasoning_content": lambda data: data},
}  # fmt: skip


class _Mock(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> MagicMock:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


@contextmanager
def vllm_classes(source: Path) -> Iterator[dict[str, type]]:
    """The classes by name, as long as the block lasts."""
    packages = {name.rsplit(".", depth)[0] for name in (*_FILES, *_PLAIN) for depth in range(name.count(".") + 1)}
    for name in sorted(packages | {"vllm.config", "vllm.logger", "vllm.renderers"} - set(_FILES)):
        sys.modules[name] = _Mock(name)
        sys.modules[name].__dict__.update(_PLAIN.get(name, {}))
    try:
        found: dict[str, type] = {}
        for name in _FILES:
            spec = importlib.util.spec_from_file_location(name, source.joinpath(*name.split(".")).with_suffix(".py"))
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            found |= {key: value for key, value in vars(module).items() if isinstance(value, type)}
        yield found
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
            del sys.modules[name]
