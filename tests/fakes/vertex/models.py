"""The model registry: models with versions and aliases."""

from __future__ import annotations

import re
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2

from tests.fakes.vertex.errors import ServiceError, invalid, not_found
from tests.fakes.vertex.filters import listed, page, select
from tests.fakes.vertex.jobs import Numbers, now

_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_MODEL_ID = re.compile(r"[a-z0-9_-]{1,63}")


class ModelService:
    """`projects.locations.models`, each a list of versions; an alias belongs to one version of its model."""

    def __init__(self, operations: Any, bucket_exists: Any) -> None:
        self.models: dict[str, list[v1.Model]] = {}
        self._operations = operations
        self._bucket_exists = bucket_exists
        self._number = Numbers(7_000_000_000_000_000_001)

    def upload_model(self, request: v1.UploadModelRequest) -> operations_pb2.Operation:
        model = request.model
        if not model.display_name or len(model.display_name) > 128:
            raise invalid("model.display_name is required and has at most 128 characters.")
        if not model.container_spec.image_uri:
            raise invalid("model.container_spec.image_uri is required for a custom-trained model.")
        spec = model.container_spec
        if any(route and not route.startswith("/") for route in (spec.predict_route, spec.health_route)):
            raise invalid("container_spec: predict_route and health_route begin with a slash.")
        if spec.args and not spec.command:  # then the image's own entry point runs, which is not known here
            raise ServiceError("UNIMPLEMENTED", "container_spec.args without command is not served here.")
        if model.artifact_uri and not model.artifact_uri.startswith("gs://"):
            raise invalid(f"model.artifact_uri must be a Cloud Storage URI, found {model.artifact_uri!r}.")
        if model.artifact_uri and not self._bucket_exists(model.artifact_uri.split("/")[2]):
            raise ServiceError("FAILED_PRECONDITION", f"The bucket of {model.artifact_uri} does not exist.")
        for alias in model.version_aliases:
            _check_alias(alias)
        if request.parent_model:
            name = request.parent_model.partition("@")[0]
            versions = self.models.get(name)
            if versions is None:
                raise not_found(name)
        else:
            identity = request.model_id or self._number()
            if not _MODEL_ID.fullmatch(identity):
                raise invalid(f"model_id {identity!r} does not match {_MODEL_ID.pattern}")
            name = f"{request.parent}/models/{identity}"
            if name in self.models:
                raise ServiceError("ALREADY_EXISTS", f"{name} already exists.")
            versions = self.models[name] = []
        model.name, model.version_id = name, str(len(versions) + 1)
        model.create_time = model.update_time = model.version_create_time = model.version_update_time = now()
        model.supported_deployment_resources_types = [v1.Model.DeploymentResourcesType.DEDICATED_RESOURCES]
        model.supported_input_storage_formats = ["jsonl", "bigquery", "csv", "tf-record", "file-list"]
        model.supported_output_storage_formats = ["jsonl", "bigquery"]
        aliases, model.version_aliases = list(model.version_aliases), []
        versions.append(model)
        if len(versions) == 1 and "default" not in aliases:
            aliases.append("default")
        for alias in aliases:
            self._assign(versions, model, alias)
        return self._operations.done(
            request.parent,
            v1.UploadModelResponse(model=name, model_version_id=model.version_id),
            v1.UploadModelOperationMetadata(),
        )

    def get_model(self, request: v1.GetModelRequest) -> v1.Model:
        return self._find(request.name)

    def list_models(self, request: v1.ListModelsRequest) -> v1.ListModelsResponse:
        current = [
            next((m for m in versions if "default" in m.version_aliases), versions[-1])
            for versions in self.models.values()
        ]
        found, token = listed(current, request)
        return v1.ListModelsResponse(models=found, next_page_token=token)

    def list_model_versions(self, request: v1.ListModelVersionsRequest) -> v1.ListModelVersionsResponse:
        versions = self.models.get(request.name.partition("@")[0])
        if versions is None:
            raise not_found(request.name)
        found, token = page(select(versions, request.filter), request.page_size, request.page_token)
        return v1.ListModelVersionsResponse(models=found, next_page_token=token)

    def merge_version_aliases(self, request: v1.MergeVersionAliasesRequest) -> v1.Model:
        model = self._find(request.name)
        versions = self.models[model.name]
        for alias in request.version_aliases:
            if alias.startswith("-"):
                if alias == "-default":
                    raise invalid("The alias default cannot be removed, only moved.")
                model.version_aliases = [a for a in model.version_aliases if a != alias[1:]]
            else:
                _check_alias(alias)
                self._assign(versions, model, alias)
        model.version_update_time = now()
        return model

    def update_model(self, request: v1.UpdateModelRequest) -> v1.Model:
        model = self._find(request.model.name)
        for path in request.update_mask.paths:
            if path not in ("display_name", "description", "labels", "version_description"):
                raise invalid(f"update_mask: {path} cannot be updated.")
            setattr(model, path, getattr(request.model, path))
        return model

    def delete_model(self, request: v1.DeleteModelRequest) -> operations_pb2.Operation:
        if self.models.pop(request.name, None) is None:
            raise not_found(request.name)
        return self._operations.done(request.name.rpartition("/models")[0], None, v1.DeleteOperationMetadata())

    def delete_model_version(self, request: v1.DeleteModelVersionRequest) -> operations_pb2.Operation:
        model = self._find(request.name)
        if "default" in model.version_aliases:
            raise ServiceError("FAILED_PRECONDITION", "The default version cannot be deleted.")
        self.models[model.name].remove(model)
        return self._operations.done(model.name.rpartition("/models")[0], None, v1.DeleteOperationMetadata())

    def _find(self, name: str) -> v1.Model:
        base, _, version = name.partition("@")
        versions = self.models.get(base, [])
        for model in versions:
            if version in (model.version_id, *model.version_aliases) or (
                not version and "default" in model.version_aliases
            ):
                return model
        raise not_found(name)

    @staticmethod
    def _assign(versions: list[v1.Model], model: v1.Model, alias: str) -> None:
        for other in versions:
            other.version_aliases = [a for a in other.version_aliases if a != alias]
        model.version_aliases.append(alias)


def _check_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        raise invalid(f"version alias {alias!r} does not match {_ALIAS.pattern}")
