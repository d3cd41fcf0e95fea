"""Credentials have no place in a configuration, an error, a log or a record: found in text, they are struck out.

The kinds of tokens are those that detect-secrets knows (of AWS, Azure, GitHub, GitLab, Slack, Stripe, JWT, ...); beside
them is what appears in URLs and headers, where the name tells and not the form.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

_STRUCK = "***"
_KEYED = r"(?:[\w.-]*(?:token|key|secret|passw|signature|credential)[\w.-]*+|sig|sas|pwd|auth)"
_CONTAINER = r"[a-z0-9-]{3,63}@[a-z0-9]{3,24}\.(?:dfs|blob)\.core\."  # of Azure: abfs://container@account.dfs.core...
_PATTERNS = (
    (re.compile(rf"(://)(?!{_CONTAINER})[^/\s@'\"]*@"), rf"\1{_STRUCK}@"),  # https://user:password@host
    (re.compile(rf"([?&#;]{_KEYED}=)[^&\s'\"]+", re.IGNORECASE | re.ASCII), rf"\1{_STRUCK}"),
    (re.compile(r"\b(Bearer|Basic) +[\w.~+/=-]{8,}", re.ASCII), rf"\1 {_STRUCK}"),
    (re.compile(r"\b(?:ya29\.|AIza|hf_|gh[pousr]_|glpat-|sk-)[\w.-]{16,}", re.ASCII), _STRUCK),
    (
        re.compile(
            r"""((?:secret|token(?!s|iz)|passw|(?:api|access|account)[_-]?key)[\w.-]*+["']?\s?[=:]\s?["']?)[\w+/=.~-]{16,}""",
            re.IGNORECASE | re.ASCII,
        ),
        rf"\1{_STRUCK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _STRUCK),
)
_PLUGINS = {  # of detect-secrets: those whose tokens have a form of their own
    "artifactory": "ArtifactoryDetector",
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
_LONG = re.compile(r"[^\s/]{11}")  # no token is shorter; words and most numbers are
# No word is so long. What it holds cannot be told in reasonable time: some patterns take its length squared.
_ENDLESS = re.compile(r"[!-~]{1000,}")


def redact(text: str, most: int | None = None) -> str:
    """`text` without what looks like a password, token or key, or is a word of a thousand letters.

    Args:
        text: what to look at.
        most: characters that are kept. What is far beyond them is not even looked at, so that a text that is repeated
            from outside costs little, however long it is.
    """
    if most is not None:
        short = redact(text[: most + 1000])
        return short if len(short) <= most else f"{short[:most]}..."
    text = _ENDLESS.sub(_STRUCK, text)
    for pattern, struck in _PATTERNS:
        text = pattern.sub(struck, text)
    if _LONG.search(text):
        for token in _tokens():
            text = token.sub(_STRUCK, text)
    return text


@cache
def _tokens() -> tuple[re.Pattern[str], ...]:
    """The patterns of the library, each up to the token's end. It takes a quarter of a second to import: not before
    there is text to look at."""
    plugins = (getattr(import_module(f"detect_secrets.plugins.{name}"), kind) for name, kind in _PLUGINS.items())
    patterns = (pattern for plugin in plugins for pattern in plugin.denylist)
    return tuple(re.compile(rf"(?:{one.pattern})(?:(?<=[\w.=])[\w.+/=-]+)?", one.flags) for one in patterns)


def without_secrets(text: str) -> str:
    """`text` as it is, for pydantic: what a configuration says is kept in records for ever.

    Raises:
        ValueError: it holds a credential.
    """
    if redact(text) != text:
        raise ValueError("holds a credential, which would be kept in every record of the run; leave it out and give"
                         " access by the environment (GOOGLE_APPLICATION_CREDENTIALS, a service account)")  # fmt: skip
    return text
