import pytest

from core.config import validate
from core.errors import UserError
from core.images.config import ImageData
from core.secrets import redact
from core.text.config import TextData

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


@pytest.mark.parametrize("text", LEAKY)
def test_credentials_are_struck_out_of_text_and_errors(text: str) -> None:
    assert SECRET not in redact(text)
    assert SECRET not in str(UserError(f"{text}: cannot be read"))


@pytest.mark.parametrize("text", ["gs://bucket/a/b?x=1", "pipelines@my-project.iam.gserviceaccount.com", "a token: 7",
                                  "data set indices [1, 2]", "https://host/keys/a.txt", "key=value"])  # fmt: skip
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("uri", LEAKY[:5])
@pytest.mark.parametrize(("section", "values"), [(ImageData, {"data_dir": ...}), (TextData, {"url": ...})])
def test_a_configuration_takes_no_credential_and_does_not_repeat_it(uri: str, section, values) -> None:
    with pytest.raises(UserError, match="holds a credential") as error:
        validate(section, dict.fromkeys(values, uri), "job.yaml")
    assert SECRET not in str(error.value)
