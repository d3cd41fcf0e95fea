"""Credentials have no place in a configuration, an error, a log or a record: found in text, they are struck out."""

from __future__ import annotations

import re

_STRUCK = "***"
_PATTERNS = (
    (re.compile(r"(://)[^/\s@'\"]*@"), rf"\1{_STRUCK}@"),  # https://user:password@host
    (
        re.compile(r"([?&#][\w.-]*(?:token|key|secret|passw|signature|credential)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE),
        rf"\1{_STRUCK}",
    ),
    (re.compile(r"\b(Bearer|Basic) +[\w.~+/=-]{8,}"), rf"\1 {_STRUCK}"),
    (re.compile(r"\b(?:ya29\.|AIza|hf_|gh[pousr]_|glpat-|sk-)[\w.-]{16,}"), _STRUCK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _STRUCK),
)


def redact(text: str) -> str:
    """`text` without what looks like a password, token or key."""
    for pattern, struck in _PATTERNS:
        text = pattern.sub(struck, text)
    return text


def without_secrets(text: str) -> str:
    """`text` as it is, for pydantic: what a configuration says is kept in records for ever.

    Raises:
        ValueError: it holds a credential.
    """
    if redact(text) != text:
        raise ValueError("holds a credential, which would be kept in every record of the run; leave it out and give"
                         " access by the environment (GOOGLE_APPLICATION_CREDENTIALS, a service account)")  # fmt: skip
    return text
