"""The clients of one Google Cloud project and region: Vertex AI by the generated clients, the rest by REST.

Nothing here is global: a `Vertex` is made from its settings and passed on. With `endpoint` set, every service is
expected there over plain HTTP and without credentials, which is how the tests run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.errors import UserError
from pipelines.settings import Settings

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT = 60.0  # seconds for one request
ENDPOINT = "TEXTDIFFUSION_ENDPOINT"
"""Environment variable: a server that answers for all of Google Cloud, as in the tests."""
_LOGIN = "gcloud auth application-default login"


@dataclass(frozen=True)
class Project:
    """What identifies the place in the cloud; empty strings mean the platform's own default."""

    project: str
    region: str
    bucket: str
    service_account: str = ""
    network: str = ""
    encryption_key: str = ""
    endpoint: str = ""
    billing_project: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Project:
        """The project that the settings name.

        Raises:
            UserError: project, region or bucket is not set.
        """
        return cls(
            project=settings.require("project"),
            region=settings.require("region"),
            bucket=settings.require("bucket").removeprefix("gs://").rstrip("/"),
            service_account=settings.service_account or "",
            network=settings.network or "",
            encryption_key=settings.encryption_key or "",
            endpoint=os.environ.get(ENDPOINT, ""),
            billing_project=settings.billing_project or "",
        )

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def registry(self) -> str:
        """Where the model registry's files are."""
        return f"gs://{self.bucket}/registry"

    def run_folder(self, pipeline: str, run: str) -> str:
        """Where everything of a run is, by contract: `gs://BUCKET/<pipeline>/<run>`."""
        return f"gs://{self.bucket}/{pipeline}/{run}"


class NoCredentialsError(UserError):
    """There are none on this machine."""


class Vertex:
    """The services of one project; each client is made when it is first used."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @cached_property
    def credentials(self) -> Any:
        """Application default credentials.

        Raises:
            UserError: there are none, or the file that the environment names cannot be used.
        """
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError

        from core.storage.remote import CREDENTIALS, refused_credentials

        if self.project.endpoint:
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        try:
            return google.auth.default(scopes=[SCOPE], quota_project_id=self.project.project)[0]
        except Exception as error:  # a damaged file makes the library raise anything
            if os.environ.get(CREDENTIALS):
                raise UserError(refused_credentials(error)) from None
            if not isinstance(error, DefaultCredentialsError):
                raise
            raise NoCredentialsError(f"Google Cloud: no credentials on this machine; run `{_LOGIN}`") from None

    @cached_property
    def pipelines(self) -> Any:
        return self._client("PipelineServiceClient")

    @cached_property
    def schedules(self) -> Any:
        return self._client("ScheduleServiceClient")

    @cached_property
    def jobs(self) -> Any:
        return self._client("JobServiceClient")

    @cached_property
    def models(self) -> Any:
        return self._client("ModelServiceClient")

    @cached_property
    def endpoints(self) -> Any:
        return self._client("EndpointServiceClient")

    @cached_property
    def predictions(self) -> Any:
        return self._client("PredictionServiceClient")

    @cached_property
    def metadata(self) -> Any:
        return self._client("MetadataServiceClient")

    @cached_property
    def tensorboards(self) -> Any:
        return self._client("TensorboardServiceClient")

    @cached_property
    def buckets(self) -> Any:
        """A `google.cloud.storage.Client`; `STORAGE_EMULATOR_HOST` is obeyed."""
        from google.cloud import storage  # type: ignore[attr-defined]

        return storage.Client(project=self.project.project, credentials=self.credentials)

    def bucket(self, name: str) -> Any:
        """A bucket, not looked up; its requests are paid by `billing_project` where the requester is to pay."""
        return self.buckets.bucket(name, user_project=self.project.billing_project or None)

    def _client(self, kind: str) -> Any:
        from google.cloud import aiplatform_v1

        endpoint = self.project.endpoint or f"{self.project.region}-aiplatform.googleapis.com"
        return getattr(aiplatform_v1, kind)(
            credentials=self.credentials,
            client_options={"api_endpoint": endpoint},
            transport="rest" if self.project.endpoint else "grpc",
        )

    @cached_property
    def _session(self) -> Any:
        import requests
        from google.auth.transport.requests import AuthorizedSession

        # Plain HTTP is only ever the tests' own server, where credentials are neither needed nor sent.
        return requests.Session() if self.project.endpoint else AuthorizedSession(self.credentials)  # type: ignore[no-untyped-call]

    def rest(
        self, host: str, method: str, path: str, body: object | None = None, *, accept: str = "application/json"
    ) -> tuple[int, Any]:
        """One REST request to a service without a generated client here: the HTTP status and the JSON answer.

        Args:
            host: e.g. `logging.googleapis.com`.
            method: GET, POST, ...
            path: with its leading slash.
            body: sent as JSON.
            accept: media types of the answer.
        """
        import requests

        url = f"{self.project.endpoint or f'https://{host}'}{path}"
        try:
            answer = self._session.request(method, url, json=body, headers={"Accept": accept}, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise UserError(f"{host}: not reachable: {type(error).__name__}") from None
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, {}


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turns a refusal by Google Cloud into one line that begins with `what`."""
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    logging.getLogger("google").setLevel(logging.ERROR)
    try:
        yield
    except exceptions.PermissionDenied as error:
        raise UserError(f"{what}: permission denied: {_said(error)}; see `textdiffusion doctor`") from None
    except exceptions.NotFound as error:
        raise UserError(f"{what}: not found: {_said(error)}") from None
    except exceptions.ResourceExhausted as error:
        raise UserError(f"{what}: quota is used up: {_said(error)}") from None
    except exceptions.GoogleAPICallError as error:
        raise UserError(f"{what}: refused: {_said(error)}") from None
    except exceptions.RetryError as error:
        raise UserError(f"{what}: no answer: {error.cause or error.message}") from None
    except GoogleAuthError as error:
        raise UserError(f"{what}: the credentials were refused: {error}; run `{_LOGIN}`") from None


def _said(error: Any) -> str:
    """The service's own words, without the request that the client puts before them."""
    message = str(error.message)
    return message.split(": ", 1)[1] if message.startswith(("GET ", "POST ", "PATCH ", "DELETE ")) else message


def console_url(project: Project, run: str) -> str:
    """The page of a run in the Google Cloud console."""
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{project.region}/pipelines/runs/{run}"
        f"?project={project.project}"
    )
