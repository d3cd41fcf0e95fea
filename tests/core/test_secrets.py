import random
import re
import string
import subprocess
import sys

import pytest

from core.config import read_yaml, validate
from core.errors import UserError
from core.images.config import ImageData
from core.secrets import redact
from core.text.config import TextData, TextDraw, TextSample
from factory.job import parse_job
from pipelines.compile import ROOT
from pipelines.jobs import CONFIGS
from pipelines.settings import load_settings

SECRET = "s3cr3t-Pa55word"
LEAKY = [
    f"https://user:{SECRET}@host/data",
    f"https://{SECRET}@host/data",
    f"gs://bucket/x?access_token={SECRET}",
    f"https://host/x?a=1&X-Goog-Signature={SECRET}&b=2",
    f"https://host/#api_key={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
]


def test_a_container_of_azure_is_no_password() -> None:
    uri = "abfs://my-container@myaccount.dfs.core.windows.net/registry"
    assert redact(f"{uri} is not there") == f"{uri} is not there"
    assert SECRET not in redact(f"abfs://user:{SECRET}@myaccount.dfs.core.windows.net/registry")


def forms(seed: float = 0) -> dict[str, str]:
    """Tokens of well-known services, by form; put together here so that no scanner takes this file for a leak."""
    draw = random.Random(seed)
    word = "".join(draw.choice(string.ascii_lowercase) + draw.choice(string.digits) for _ in range(60))
    return {
        "a signature of Azure": f"https://account.blob.core.windows.net/c/x?sv=2024-01-01&sig={word[:40]}%3D",
        "an id of AWS": "AK" + "IA" + word[:16].upper(),
        "a secret of AWS": f"aws_secret_access_key = '{word[:40]}'",
        "a secret without quotes": f"AWS_SECRET_ACCESS_KEY={word[:40]}",
        "a JWT": "ey" + f"J{word[:20]}.eyJ{word[20:50]}.{word[50:90]}",
        "Slack": "xo" + f"xb-123456789012-1234567890123-{word[:24]}",
        "Stripe": "sk_" + f"live_{word[:24]}",
        "GitHub": "gh" + f"p_{word[:36]}",
        "GitLab": "gl" + f"dt-{word[:24]}",
        "SendGrid": f"SG.{word[:22]}.{word[22:65]}",
        "a storage key of Azure": f"AccountKey={word[:88]}",
        "PyPI": "pypi-AgEIcHlwaS5vcmc" + word[:80],
        "npm": f"//registry.npmjs.org/:_authToken=npm_{word[:36]}",
    }


@pytest.mark.parametrize("kind", forms())
def test_tokens_of_well_known_services_are_struck_out_to_their_end(kind: str) -> None:
    text = forms()[kind]
    parts = [part for part in re.split(r"[^A-Za-z0-9]", text) if len(part) >= 16]
    assert parts
    shown = redact(f"before {text} after")
    assert [part for part in parts if part in shown] == []
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@pytest.mark.parametrize("kind", forms())
def test_no_field_of_a_configuration_takes_a_token(kind: str) -> None:
    job = read_yaml(CONFIGS / "digits.yaml")
    with pytest.raises(UserError, match="description: holds a credential"):
        parse_job({**job, "description": f"look at {forms()[kind]}"}, "job.yaml")
    with pytest.raises(UserError, match="labels: holds a credential"):
        load_settings({"labels": {"owner": forms()[kind]}}, environment={})


def test_the_token_of_the_settings_is_taken_for_it_is_kept_nowhere() -> None:
    assert load_settings(environment={"TEXTDIFFUSION_KUBEFLOW_TOKEN": forms()["a JWT"]}).kubeflow_token


@pytest.mark.parametrize("kind", forms())
def test_a_prompt_is_kept_by_runs_and_not_by_a_draw(kind: str) -> None:
    section = {"prompts": [f"password: {forms()[kind]}"]}
    with pytest.raises(UserError, match="prompts: holds a credential"):
        validate(TextSample, section, "sample")
    assert validate(TextDraw, section, "sample").prompts


def test_the_librarys_patterns_are_not_imported_for_words() -> None:
    program = "import sys; from core.errors import UserError; UserError('no such run');"
    program += "print('detect_secrets' in sys.modules)"
    called = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert called.stdout == "False\n"


@pytest.mark.parametrize("text", LEAKY)
def test_credentials_are_struck_out_of_text_and_errors(text: str) -> None:
    assert SECRET not in redact(text)
    assert SECRET not in str(UserError(f"{text}: cannot be read"))


@pytest.mark.parametrize("text", ["gs://bucket/a/b?x=1", "pipelines@my-project.iam.gserviceaccount.com", "a token: 7",
                                  "data set indices [1, 2]",
                                  f"tokenizer_sha256: {'0123456789abcdef' * 4}", "max_tokens=12345678901234567890",
                                  "runs/digits/digits-20261124-163819-e460", f"{'f' * 40}-dirty",
                                  "https://host/keys/a.txt", "key=value"])  # fmt: skip
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("uri", LEAKY[:5])
@pytest.mark.parametrize(("section", "values"), [(ImageData, {"data_dir": ...}), (TextData, {"url": ...})])
def test_a_configuration_takes_no_credential_and_does_not_repeat_it(uri: str, section, values) -> None:
    with pytest.raises(UserError, match=r"holds a credential|not a place for files") as error:
        validate(section, dict.fromkeys(values, uri), "job.yaml")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("text", ["eyJ" * 100_000, "?" + "token" * 60_000, "https://hooks.slack.com/T" * 9_000])
def test_a_word_that_would_be_looked_at_for_minutes_is_struck_out(text: str) -> None:
    assert redact(f"a {text} b") == "a *** b"


def test_no_more_is_looked_at_than_is_shown() -> None:
    spaced = "https://hooks.slack.com/services/T " * 40_000
    assert len(redact(spaced, 100)) == 103
    assert len(str(UserError(spaced))) < 3_100
    assert str(UserError(f"job.yaml: {'x' * 100_000}: the reason")).endswith("*** the reason")
    assert SECRET not in redact(f"{'a ' * 48}https://user:{SECRET}@host/data", 100)  # cut in the middle
    assert str(UserError("a b")) == "a b"
