"""The pipeline on the real gcsfuse: `make test-gcsfuse`."""
