"""KFP components: thin typed wrappers over `core.modality`, one file a step."""
