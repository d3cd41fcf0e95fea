"""The Vertex AI Model Registry as a mirror of the registry folder, which stays the truth.

Each version of a model becomes a version there with the alias `vN` and its lineage as labels and description; the
alias `champion` follows the folder's champion. Each names a container that serves it: the image of the steps with
`serve` as its command. Mirroring again changes nothing, except that a version without such a container is
uploaded again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from core.printable import say
from factory.registry import CHAMPION, Registry
from factory.versions import Version

ENDPOINT = "TEXTDIFFUSION_ENDPOINT"
COMMAND, ARGUMENTS = "textdiffusion", ("serve",)  # of the image
PORT, HEALTH_ROUTE, PREDICT_ROUTE = 8080, "/health", "/predict"  # Vertex AI tells them to the container


def mirror(client: Any, parent: str, registry: Registry, model: str, image: str) -> dict[str, Any]:
    """Brings the Vertex registry up to date with one model of the folder.

    Args:
        client: a `ModelServiceClient`.
        parent: `projects/PROJECT/locations/REGION`.
        registry: the folder.
        model: its name, and the model's id there.
        image: container that serves the versions.

    Returns:
        {"model": resource name, "uploaded": numbers of the versions that were new, "champion": number or None}
    """
    from google.api_core.exceptions import NotFound

    name = f"{parent}/models/{model}"
    try:
        known = {alias: item for item in client.list_model_versions(name=name) for alias in item.version_aliases}
    except NotFound:
        known = {}
    there, uploaded = bool(known), []
    for version in registry.versions(model):
        if answers(known.get(f"v{version.version}")):
            continue
        request: dict[str, Any] = {"parent": parent, "model": _model(version, image)}
        request |= {"parent_model": name} if there else {"model_id": model}
        client.upload_model(request=request).result(timeout=600)
        there = True
        uploaded.append(version.version)
    champion = registry.champion(model)
    if champion is not None:
        current = next((item for alias, item in known.items() if alias == CHAMPION), None)
        renewed = champion.version in uploaded
        if current is None or renewed or f"v{champion.version}" not in current.version_aliases:
            client.merge_version_aliases(name=f"{name}@v{champion.version}", version_aliases=[CHAMPION, "default"])
    return {"model": name, "uploaded": uploaded, "champion": champion.version if champion else None}


def answers(model: Any) -> bool:
    """Whether a version of the Vertex registry names a container that serves; None: there is no such version."""
    return model is not None and bool(model.container_spec.predict_route)


def mirror_from_step(registry: Registry, model: str, environment: Mapping[str, str] = os.environ) -> None:
    """Mirrors from inside a step, if its environment names a project; a refusal there must not fail the run."""
    project, region = environment.get("TEXTDIFFUSION_PROJECT"), environment.get("TEXTDIFFUSION_REGION")
    if not project or not region:
        return
    try:
        image = environment.get("TEXTDIFFUSION_IMAGE", "textdiffusion")
        done = mirror(client(region, environment.get(ENDPOINT, "")), f"projects/{project}/locations/{region}",
                      registry, model, image)  # fmt: skip
        state = f"version {done['champion']} is {CHAMPION}" if done["champion"] else "no version is champion"
        say(f"Vertex AI Model Registry: {model}: {state}")
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        say(f"WARNING: the Vertex AI Model Registry was not brought up to date: {text};"
              " `textdiffusion models --mirror` does it later")  # fmt: skip


def client(region: str, endpoint: str = "", service: str = "Model") -> Any:
    """The client of a service of Vertex AI, such as Model or Job; with `endpoint`, for the server there, over HTTP and
    without credentials."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform_v1

    make = getattr(aiplatform_v1, f"{service}ServiceClient")
    if endpoint:
        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return make(credentials=anonymous, client_options={"api_endpoint": endpoint}, transport="rest")
    return make(client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"})


def container(image: str) -> dict[str, Any]:
    """`ModelContainerSpec` that serves a version: the service says which by AIP_STORAGE_URI."""
    return {"image_uri": image, "command": [COMMAND], "args": list(ARGUMENTS), "ports": [{"container_port": PORT}],
            "health_route": HEALTH_ROUTE, "predict_route": PREDICT_ROUTE}  # fmt: skip


def _model(version: Version, image: str) -> dict[str, Any]:
    facts = {"weights": version.weights_sha256, "data": str(version.lineage.get("data_hash", "")),
             "code": str(version.lineage.get("code_version", ""))}  # fmt: skip
    numbers = ", ".join(
        f"{name} {entry.get('value'):.4g} (floor {entry.get('floor')})"
        for name, entry in sorted(version.metrics.items())
        if isinstance(entry, Mapping) and isinstance(entry.get("value"), int | float)
    )
    if version.provisional:
        facts["state"] = version.state(champion=False)
    return {
        "display_name": version.model,
        "artifact_uri": version.uri,  # with its manifest, which says how it was measured and what its files are
        "container_spec": container(image),
        "version_aliases": [f"v{version.version}"],
        "version_description": numbers[:1000],
        "labels": {key: re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63] for key, value in facts.items() if value},
    }
