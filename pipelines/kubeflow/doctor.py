"""What a Kubeflow installation has for runs, and what mends that which is missing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.metadata import version

from core import storage
from core.errors import UserError
from core.names import inside
from pipelines.compile import image_name
from pipelines.findings import Check, checked
from pipelines.kubeflow import trainjobs
from pipelines.kubeflow.client import LEAST, Cluster
from pipelines.kubeflow.metadata import of_run
from pipelines.kubeflow.submit import namespace_problem, version_findings
from pipelines.settings import Settings

_LOGIN = (
    "export TEXTDIFFUSION_KUBEFLOW_TOKEN=$(kubectl create token default-editor -n NAMESPACE"
    " --audience=pipelines.kubeflow.org)"
)


def checks(settings: Settings) -> Iterator[Check]:
    """Each check as {"check", "state": ok | missing | optional, "found", "mend"}, in the order of mending."""
    yield checked("kfp", True, version("kfp"), "")
    host = settings.kubeflow_host
    yield checked("kubeflow_host", bool(host), host or "not set", "echo 'kubeflow_host: YOURS' >> textdiffusion.yaml")
    if not host:
        return
    cluster = Cluster(settings)
    try:
        health = cluster.health
    except UserError as error:
        login = any(word in str(error) for word in ("login page", "401", "403"))
        forward = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
        yield checked("Kubeflow Pipelines", False, error, _LOGIN if login else forward)
        return
    findings = list(version_findings(cluster))
    seen = health.get("tag_name") or "unknown"
    known = not findings or not findings[0].problem
    text = findings[0].text if findings else f"version {seen}"
    yield checked("Kubeflow Pipelines", known, text, f"install version {LEAST[0]}.{LEAST[1]} or newer")
    place, wrong = cluster.namespace, namespace_problem(cluster)
    said, _, mend = wrong.partition("; ")
    yield checked("kubeflow_namespace", not wrong, said or place or "one user", mend)
    if wrong:
        return
    try:
        with cluster.one_line("runs"):
            cluster.client.list_runs(namespace=place, page_size=1)
            cluster.client.list_recurring_runs(namespace=place, page_size=1)
        yield checked("runs and schedules", True, "may be listed", "")
    except UserError as error:
        yield checked("runs and schedules", False, error, _LOGIN)
    yield from _registry(settings)
    try:
        of_run(cluster, "none")
        yield checked("ML Metadata", True, "answers", "")
    except UserError as error:
        yield checked("ML Metadata", False, error, "kubeflow_host: the address of svc/ml-pipeline-ui; without it there"
                     " is no `gc`, and no `lineage` of runs", needed=False)  # fmt: skip
    root = settings.kubeflow_root
    yield checked("kubeflow_root", bool(root), root or "not set: artifacts go to the installation's own store",
                 "echo 'kubeflow_root: gs://YOURS/pipelines' >> textdiffusion.yaml", needed=False)  # fmt: skip
    image = image_name(settings.image)
    yield checked("image", "." in image.partition("/")[0], image, "echo 'image: REGISTRY/textdiffusion' >>"
                 " textdiffusion.yaml, and push it: docker push $(textdiffusion image)", needed=False)  # fmt: skip
    yield from trainjobs.checks(settings)


def _registry(settings: Settings) -> Iterator[Check]:
    """The registry's prefix is remote and can be written from here; what pods may do is theirs to say."""
    registry = settings.registry
    if not storage.is_remote(registry):
        mend = "echo 'registry: gs://YOURS/registry' >> textdiffusion.yaml"
        yield checked("registry", False, f"{registry} is on this machine", mend)
        return
    probe = inside(registry, f".textdiffusion-preflight-{uuid.uuid4().hex}")
    try:
        made = storage.create(probe, b"first") and not storage.create(probe, b"second")
        storage.remove(probe)
    except (UserError, OSError) as error:
        yield checked("registry", False, error, "give this account read and write rights to it")
        return
    seen = f"{registry}, writable" if made else f"{registry}: its store lets two make one object (no If-None-Match)"
    yield checked("registry", made, seen, "use a store with conditional writes: of two retrainings both could register")
