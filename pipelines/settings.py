"""Settings of this machine and project: command line > TEXTDIFFUSION_* > textdiffusion.yaml > job YAML.

    # textdiffusion.yaml, in the folder where commands are run
    project: my-project
    region: europe-west4
    bucket: my-bucket
    machines: {mine: {machine_type: n1-standard-8, cpu: 8, memory_gb: 30}}
    set: {train: {batch_size: 64}}      # laid over every job that has such a section

In the environment, TEXTDIFFUSION_REGION sets `region` and TEXTDIFFUSION_TRAIN__BATCH_SIZE a key of the jobs.

Layered by hand and not by pydantic-settings: keys of jobs share the prefix, and text stays as written until its field's
type is known (core/yamltext.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from core import yamltext
from core.config import Frozen, Place, merge, read_written, validate
from core.errors import UserError
from core.storage.remote import PAYER

FILE = Path("textdiffusion.yaml")
PREFIX = "TEXTDIFFUSION_"


class Dataflow(Frozen):
    """Machines of Google Cloud Dataflow, for what jobs leave to Apache Beam."""

    machine_type: str = Field(default="n1-standard-4", pattern=r"^[a-z0-9-]{1,60}$")
    workers: int = Field(default=16, ge=1, le=4000, description="most machines at once; a job may say fewer or more")
    subnetwork: str | None = Field(default=None, description="regions/REGION/subnetworks/NAME; left out: the default")
    public_ips: bool = Field(default=True, description="false: a subnetwork with Private Google Access")


class Settings(Frozen):
    """What is not part of a job. Nothing here has a default project, region or bucket."""

    kept_nowhere: ClassVar[frozenset[str]] = frozenset({"kubeflow_token", "kubeflow_cookie"})

    runs: Place = Field(default="runs", description="folder of local runs")
    registry: Place = Field(default="registry", description="model registry: a folder or gs:// prefix")
    image: str = Field(default="textdiffusion", description="image repository; a tag, if given, is used as it is")
    container_memory: str = Field(
        default="",
        pattern=r"^([1-9][0-9]{0,12}[kmg]?)?$",
        description="most memory of a step with --runner docker, such as 8g; left out: nine tenths of the engine's",
    )
    container_processes: int = Field(
        default=4096, ge=64, le=1 << 22, description="most processes and threads of a step with --runner docker"
    )
    project: str | None = None
    region: str | None = None
    bucket: str | None = Field(default=None, description="name without gs://")
    service_account: str | None = None
    build_account: str | None = Field(default=None, description="account that Cloud Build builds the image as")
    network: str | None = None
    encryption_key: str | None = Field(default=None, description="CMEK for what Vertex stores")
    tensorboard: str | None = Field(default=None, description="Vertex TensorBoard instance")
    experiment: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    service: Literal["vertex", "kubeflow"] | None = Field(
        default=None, description="where `deploy`, `monitor`, `schedule` and so on run; left out: what is configured"
    )
    kubeflow_host: str | None = Field(default=None, description="address of its pages or of its API")
    kubeflow_namespace: str | None = Field(default=None, description="of a multi-user installation")
    kubeflow_token: str | None = Field(default=None, description="bearer token; set it in the environment")
    kubeflow_token_file: str | None = Field(
        default=None, description="file with a bearer token that somebody renews; read before each request"
    )
    kubeflow_cookie: str | None = Field(default=None, description="cookie of a login; set it in the environment")
    kubeflow_service_account: str | None = Field(default=None, description="Kubernetes account that steps run as")
    kubeflow_environment: dict[str, str] = Field(default_factory=dict, description="variables of every step")
    kubeflow_secrets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="keys that become variables of every step, by name of the Kubernetes secret"
    )
    kubeflow_timezone: str = Field(default="UTC", description="time zone of the controller that starts scheduled runs")
    kubeflow_root: str | None = Field(
        default=None, description="pipeline root of runs: a gs:// or s3:// prefix; left out: that of the installation"
    )
    billing_project: str | None = Field(
        default=None, description="project that pays for reading buckets whose owner lets the requester pay"
    )
    pass_variables: tuple[str, ...] = Field(
        default=(), description="environment variables that steps of local runs get besides the usual ones"
    )
    track: tuple[Literal["mlflow", "wandb"], ...] = Field(
        default=(), description="trackers that are told of each local run when it has ended (docs/how-to/track.md)"
    )
    dataflow: Dataflow | None = Field(
        default=None, description="machines for `data.shards.engine: beam`; left out: Beam runs on the step's machine"
    )
    max_cost: float | None = Field(default=None, gt=0, description="USD; a run estimated above it is refused")
    machines: dict[str, dict[str, Any]] = Field(default_factory=dict, description="rows of resources.yaml")
    set: dict[str, dict[str, Any]] = Field(default_factory=dict, description="sections laid over every job")

    def require(self, name: str) -> str:
        """The setting called `name`; a UserError that says the line to write if it is not set."""
        value = getattr(self, name)
        if not value:
            raise UserError(f"{name} is not set: write `{name}: ...` into {FILE}, or set {PREFIX}{name.upper()}")
        return str(value)


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    file: Path = FILE,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of all layers; `overrides` come from the command line, where None means not given.

    Raises:
        UserError: a key is unknown or a value is not valid.
    """
    given = os.environ if environment is None else environment
    values: dict[str, Any] = read_written(file) if file.exists() else {}
    validate(Settings, values, str(file))
    values = merge(values, _from_environment(given))
    values = merge(values, {key: value for key, value in (overrides or {}).items() if value is not None})
    settings = validate(Settings, values, "settings")
    if environment is None and settings.billing_project:  # storage reads it there, in this process and in steps
        os.environ[PAYER] = settings.billing_project
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX).lower()
        section, separator, inner = key.partition("__")
        value = yamltext.parse(text, name)
        if separator:
            nested: Any = value
            for part in reversed(inner.split("__")):
                nested = {part: nested}
            values = merge(values, {"set": {section: nested}})
        elif key in Settings.model_fields:
            values[key] = value
    return values
