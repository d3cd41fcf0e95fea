"""The client of one Kubeflow Pipelines installation: `kfp.Client`, with every refusal as one line.

The client that KFP generates follows a redirect to a login page, and takes the page for an object without fields. So
redirects are not followed here, and what is not JSON is refused.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import UserError
from pipelines.settings import Settings

LEAST, COLLECTS = (2, 3), (2, 14)
"""Versions of the server: the first whose scratch volumes a step that is not root can write, and the first that
collects artifacts of a loop, as a search does."""
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_LOGIN = "set TEXTDIFFUSION_KUBEFLOW_TOKEN, kubeflow_token_file or TEXTDIFFUSION_KUBEFLOW_COOKIE"


class Cluster:
    """The installation that the settings name. Nothing is sent before it is asked for something."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.host = settings.require("kubeflow_host").rstrip("/")
        self.namespace = settings.kubeflow_namespace

    @cached_property
    def client(self) -> Any:
        """A `kfp.Client`.

        Raises:
            UserError: the installation cannot be reached, or asks who this is.
        """
        import kfp

        class Client(kfp.Client):  # type: ignore[misc]
            """Asks for the installation's health once; its parent tries for half a minute and logs each failure."""

            def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
                _guard(self._healthz_api.api_client)
                return self._healthz_api.healthz_service_get_healthz()

        logging.getLogger("kfp").setLevel(logging.ERROR)
        given = self.settings
        file = given.kubeflow_token_file
        with self.one_line(""), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = Client(
                host=self.host,
                namespace=self.namespace or "kubeflow",
                existing_token=given.kubeflow_token,
                cookies=given.kubeflow_cookie,
                credentials=_renewed(file) if file and not given.kubeflow_token else None,
            )
            _guard(client._run_api.api_client)
            return client

    @cached_property
    def health(self) -> dict[str, Any]:
        """What the server says about itself: {"tag_name", "multi_user", ...}."""
        from kfp_server_api.exceptions import ApiException

        with self.one_line(""):
            code, text = self.text("/apis/v2beta1/healthz")
            if code != 200:
                raise ApiException(status=code, reason=text[:300] or "no reason")
            return dict(json.loads(text))

    @property
    def version(self) -> tuple[int, int] | None:
        """(major, minor) of the server; None: it does not say."""
        said = re.match(r"v?(\d+)\.(\d+)", str(self.health.get("tag_name") or ""))
        return (int(said[1]), int(said[2])) if said else None

    def text(self, path: str, query: dict[str, str] | None = None, *, or_page: bool = False) -> tuple[int, str]:
        """One GET request that is no part of the generated API: HTTP status and text. With `or_page` a web page counts
        as 404: the front end answers so for what it does not know."""
        try:
            answer = self._request("GET", path, fields=query or {})
        except _LoginPageError as page:
            if or_page and page.status == 200:
                return 404, ""
            raise
        return answer.status, answer.data.decode("utf-8", "replace")

    def post(self, path: str, content: bytes, kind: str) -> tuple[int, Any, bytes]:
        """One POST request likewise: HTTP status, headers and body; a web page counts as 404."""
        with self.one_line(""):
            try:
                answer = self._request("POST", path, {"Content-Type": kind, "X-Grpc-Web": "1"}, body=content)
            except _LoginPageError as page:
                if page.status != 200:
                    raise
                return 404, {}, b""
            return answer.status, answer.headers, answer.data

    def _request(self, verb: str, path: str, more: dict[str, str] | None = None, **rest: Any) -> Any:
        api = self.client._run_api.api_client
        headers = {"Accept": "*/*", **api.default_headers, **({"Cookie": api.cookie} if api.cookie else {})}
        api.update_params_for_auth(headers, [], ["Bearer"])
        url = f"{api.configuration.host}{path}"
        return api.rest_client.pool_manager.request(verb, url, headers={**headers, **(more or {})}, **rest)

    def page(self, identity: str) -> str:
        """The page of a run."""
        return f"{self.host}/#/runs/details/{identity}"

    @contextmanager
    def one_line(self, what: str) -> Iterator[None]:
        """Turns what the client raises into one line that begins with `what`."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        where = f"{what}: kubeflow {self.host}" if what else f"kubeflow {self.host}"
        try:
            yield
        except _LoginPageError as error:
            raise UserError(f"{where}: answered with a login page{error}; {_LOGIN}") from None
        except ApiException as error:
            said = said_by(error)
            if error.status == 401:
                raise UserError(f"{where}: 401, it does not know who this is: {said}; {_LOGIN}") from None
            if error.status == 403:
                place = f"namespace {self.namespace}" if self.namespace else "kubeflow_namespace, which is not set"
                raise UserError(f"{where}: 403, permission denied: {said}; look at {place}") from None
            if error.status == 404:
                raise UserError(f"{where}: not found: {said}") from None
            raise UserError(f"{where}: refused: {error.status} {said}") from None
        except (HTTPError, OSError) as error:
            raise UserError(f"{where}: not reachable: {type(error).__name__}") from None
        except ValueError as error:  # of kfp.Client, and of JSON
            raise UserError(f"{where}: {' '.join(str(error).split())[:200]}") from None


class _LoginPageError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def said_by(error: Any) -> str:
    """The server's own words in an `ApiException`."""
    text = str(error.body or error.reason or "no reason")
    try:
        told = json.loads(text)
        text = str(told.get("message") or told.get("error") or text)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:300]


def _guard(api: Any) -> None:
    """Lets a generated client refuse redirects and web pages, and end a request that nobody answers."""
    from urllib3 import Timeout

    pool = api.rest_client.pool_manager
    if isinstance(pool, _Guarded):
        return
    api.rest_client.pool_manager = _Guarded(pool, Timeout(connect=_TIMEOUT[0], read=_TIMEOUT[1]))


class _Guarded:
    """A urllib3 pool whose answers are the service's own."""

    def __init__(self, pool: Any, timeout: Any) -> None:
        self._pool, self._timeout = pool, timeout

    def request(self, method: str, url: str, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or self._timeout
        answer = self._pool.request(method, url, redirect=False, **options)
        if 300 <= answer.status < 400:
            where = answer.headers.get("Location", "nowhere")[:200]
            raise _LoginPageError(answer.status, f" ({answer.status} to {where})")
        if answer.status == 200 and "html" in answer.headers.get("Content-Type", "").lower():
            raise _LoginPageError(200, " (a web page in place of JSON)")
        return answer


def _renewed(path: str) -> Any:
    """Credentials that read the token of a file before each request, since somebody renews it."""
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class TokenFile(TokenCredentialsBase):  # type: ignore[misc]
        def refresh_api_key_hook(self, config: Any) -> None:
            try:
                config.api_key["authorization"] = Path(os.path.expanduser(path)).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise UserError(f"kubeflow_token_file: {path}: {error.strerror}") from None

    return TokenFile()
