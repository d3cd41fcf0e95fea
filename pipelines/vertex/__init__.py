"""Runs on Vertex AI Pipelines: checked, submitted, watched, scheduled, traced."""
