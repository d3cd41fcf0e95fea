"""The pipelines: their definitions, how they are compiled and submitted, and the command line."""
