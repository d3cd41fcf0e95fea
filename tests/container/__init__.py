"""The image in a real engine: `make test-container`, which is `python -m tests.container`."""
