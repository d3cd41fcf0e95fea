"""A Kubeflow Pipelines installation on this machine, for the real `kfp.Client` to talk to."""

from tests.fakes.kubeflow.server import KubeflowServer

__all__ = ["KubeflowServer"]
