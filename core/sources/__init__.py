"""A person's own data as files: what is listed, unpacked and loaded, whatever the modality, and what is said of it."""
