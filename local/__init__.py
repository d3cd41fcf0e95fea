"""The local runner: compiled pipelines on this machine, and the run folders they leave."""
