"""KFP components: thin typed wrappers over `core.steps`, one file a step."""
