"""The pipelines: their definitions, and how they are compiled; the services that run them have rooms of their own."""
