"""Secrets are taken out of what a run writes: records, reports, saved configurations, W&B's config.

What counts as one: the value of an environment variable or setting whose name says so (`HF_TOKEN`, `api_key`), the
password in a URL, a signed URL's signature, and keys of a well-known form. The run itself works with the real values.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

HIDDEN = "***"
SHORTEST = 8
_VARIABLE = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)", re.IGNORECASE)
_OF = "api|auth|access|hf|hub|wandb|private|secret|bearer"  # what a key or token is of; a tokenizer's are of pads
_NAME = rf"(?:\w*_)?(?:password|passwd|secret|credentials?|(?:{_OF})_?(?:key|token))"
_SETTING = re.compile(_NAME, re.IGNORECASE)
_GIVEN = re.compile(rf"(--[\w.]*?\b{_NAME}\s+|\b{_NAME}['\"]?\s*[=:]\s*)(['\"]?)[^\s,}}'\"]{{8,}}", re.IGNORECASE)
_FORMS = (
    (re.compile(r"(\w+://[^/\s:@]*):[^/\s@]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"([?&](?:token|key|sig|signature|api_key|access_token|X-Amz-\w+)=)[^&\s'\"]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(hf_|sk-|gh[pousr]_|glpat-|xox[abp]-)[\w-]{16,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), HIDDEN),
)  # fmt: skip


def redact(content: Any) -> Any:
    """`content` (nested lists and mappings of values) with every secret in its texts replaced by `***`."""
    if isinstance(content, str):
        return _text(content)
    if isinstance(content, dict):
        return {key: _value(str(key), value) for key, value in content.items()}
    return [redact(item) for item in content] if isinstance(content, list | tuple) else content


def _value(key: str, value: Any) -> Any:
    if isinstance(value, str) and len(value) >= SHORTEST and _SETTING.fullmatch(key.rpartition(".")[2]):
        return HIDDEN
    return redact(value)


def _text(text: str) -> str:
    for secret in _secrets(tuple(v for k, v in os.environ.items() if _VARIABLE.fullmatch(k))):
        text = text.replace(secret, HIDDEN)
    text = _GIVEN.sub(rf"\1\2{HIDDEN}", text)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


@functools.lru_cache(maxsize=8)
def _secrets(values: tuple[str, ...]) -> tuple[str, ...]:
    """Those long enough to be no ordinary word, longest first: one may stand within another."""
    return tuple(sorted((v for v in values if len(v) >= SHORTEST and not v.isspace()), key=len, reverse=True))
