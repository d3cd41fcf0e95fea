"""Whether a cluster has what a training on several nodes needs: TrainJob, its runtime, the rights of steps, secrets.

Kubernetes itself is asked, by the context of kubectl, which a person may not have; what KFP tells says nothing of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from components.train_jobs import GROUP, NEEDS, PLURAL, RIGHTS, VERSION, one_line
from pipelines.findings import Check, checked
from pipelines.kubeflow.manifest import RUNTIME
from pipelines.machines import load_machines
from pipelines.settings import Settings

ROLE = "apply the Role in docs/distributed.md, `On Kubeflow, inside a pipeline`"
_row = partial(checked, needed=False)
_TIMEOUT = (5.0, 20.0)  # seconds to connect, and between two pieces of an answer


def checks(settings: Settings) -> Iterator[Check]:
    """Each check of what `resources.replicas` above 1 needs, in the order of mending, for the namespace and the account
    of the settings. None is more than optional: kubectl may talk to another cluster than `kubeflow_host`."""
    import yaml
    from kubernetes import config

    file = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    try:
        context = str(config.list_kube_config_contexts(str(file))[1]["name"])
        cluster = _Kubernetes(config.new_client_from_config(str(file)))
    except (config.ConfigException, OSError, KeyError, TypeError, yaml.YAMLError) as error:
        seen = f"none in {file}" if isinstance(error, OSError) or not file.exists() else one_line(str(error), 120)
        yield _row("kubectl", False, seen, "not needed for one node; several nodes cannot be checked")
        return
    place = settings.kubeflow_namespace or "kubeflow"
    versions = cluster.ask("GET", f"/apis/{GROUP}/")
    if isinstance(versions, str):
        yield _row("kubectl", False, f"context {context}: {versions}", "kubectl cluster-info")
        return
    yield _row("kubectl", True, f"context {context}, namespace {place}", "")
    yield from _trainer(cluster, versions)
    yield from _rights(cluster, place, settings)
    yield from _secrets(cluster, place, settings)


class _Kubernetes:
    """An API that is asked for plain JSON."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def ask(self, verb: str, path: str, body: Any = None) -> dict[str, Any] | str | None:
        """An answer; None if there is no such thing; a line if it is refused, or nobody answers."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            answer = self._client.call_api(
                path, verb, header_params=headers, body=body, auth_settings=["BearerToken"],
                _preload_content=False, _request_timeout=_TIMEOUT,
            )[0]  # fmt: skip
            return dict(json.loads(answer.data))
        except ApiException as error:
            return None if error.status == 404 else one_line(f"{error.status} {error.reason}", 120)
        except (HTTPError, OSError, ValueError) as error:
            return f"not reachable: {type(error).__name__}"


def _trainer(cluster: _Kubernetes, versions: dict[str, Any] | None) -> Iterator[Check]:
    served = [str(one.get("version")) for one in (versions or {}).get("versions", ())]
    if VERSION not in served:
        seen = f"{GROUP} serves {', '.join(served)}, not {VERSION}" if served else f"no {GROUP} in this cluster"
        yield _row("TrainJob", False, seen, NEEDS)
        return
    defined = cluster.ask("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
    fields = json.dumps(defined) if isinstance(defined, dict) else ""
    old = bool(fields) and '"runtimePatches"' not in fields
    seen = "has no runtimePatches: it is older than 2.3" if old else f"{GROUP}/{VERSION}"
    yield _row("TrainJob", not old, seen, NEEDS)
    runtime = cluster.ask("GET", f"/apis/{GROUP}/{VERSION}/clustertrainingruntimes/{RUNTIME}")
    if isinstance(runtime, str):
        yield _row("runtime", False, f"{RUNTIME}: {runtime}", "ask who may read it")
    else:
        yield _row("runtime", runtime is not None, RUNTIME if runtime else f"no {RUNTIME}",
                  "apply manifests/overlays/runtimes of Kubeflow Trainer, as in docs/how-to/kubeflow.md")  # fmt: skip


def _rights(cluster: _Kubernetes, place: str, settings: Settings) -> Iterator[Check]:
    """What the account of steps may do, by reviews in its namespace; its administrators may ask for them."""
    account = settings.kubeflow_service_account or (
        "default-editor" if settings.kubeflow_namespace else "pipeline-runner"
    )
    reviews = f"/apis/authorization.k8s.io/v1/namespaces/{place}/localsubjectaccessreviews"
    lacking = []
    for group, resource, verb in RIGHTS:
        kind, _, part = resource.partition("/")
        wanted = {"namespace": place, "group": group, "resource": kind, "verb": verb}
        wanted |= {"subresource": part} if part else {}
        subject = f"system:serviceaccount:{place}"
        groups = [subject.replace("account", "accounts", 1), "system:serviceaccounts", "system:authenticated"]
        spec = {"user": f"{subject}:{account}", "groups": groups, "resourceAttributes": wanted}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
                  "metadata": {"namespace": place}, "spec": spec}  # fmt: skip
        said = cluster.ask("POST", reviews, review)
        if not isinstance(said, dict):
            seen = f"{account}: cannot be asked: {said or 'no such namespace'}"
            mend = f"kubectl auth can-i create {PLURAL}.{GROUP} -n {place} --as {spec['user']}"
            yield _row("rights of steps", False, seen, mend)
            return
        if not (said.get("status") or {}).get("allowed"):
            lacking.append(f"{verb} {resource}")
    seen = f"{account} may not {', '.join(lacking)}" if lacking else f"{account} may all that is needed"
    yield _row("rights of steps", not lacking, seen, ROLE)


def _secrets(cluster: _Kubernetes, place: str, settings: Settings) -> Iterator[Check]:
    """Those that pods wait for without an end if they are not there: of variables, and for pulling the image."""
    rows = load_machines(settings.machines)
    wanted: dict[str, set[str]] = {name: set() for one in rows.values() for name in one.kubernetes.pull_secrets}
    for name, variables in settings.kubeflow_secrets.items():
        wanted.setdefault(name, set()).update(variables)
    for name, keys in sorted(wanted.items()):
        secret = cluster.ask("GET", f"/api/v1/namespaces/{place}/secrets/{name}")
        if isinstance(secret, str):
            yield _row("secret", False, f"{name}: {secret}", "ask who may read it")
            continue
        lacking = keys - set((secret or {}).get("data") or ())
        seen = f"no {name} in {place}" if secret is None else f"{name} has no {', '.join(sorted(lacking))}"
        mend = f"kubectl create secret -n {place} generic {name} --from-literal=KEY=..."
        mend = mend if keys else f"kubectl create secret -n {place} docker-registry {name} ..."
        good = secret is not None and not lacking
        yield _row("secret", good, name if good else seen, mend)
