"""A Kubernetes API with Kubeflow Trainer 2 behind it, as far as a training on several nodes needs it."""

from tests.fakes.kubernetes.rules import check
from tests.fakes.kubernetes.server import Kubernetes

__all__ = ["Kubernetes", "check"]
