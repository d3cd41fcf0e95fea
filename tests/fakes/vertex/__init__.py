"""A Vertex AI on this machine: the REST services that the real clients call, which run what is submitted."""

from tests.fakes.vertex.server import VertexServer

__all__ = ["VertexServer"]
