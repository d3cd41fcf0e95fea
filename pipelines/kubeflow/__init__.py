"""Runs on any Kubeflow Pipelines v2 host, and trainings by Kubeflow's trainer."""
