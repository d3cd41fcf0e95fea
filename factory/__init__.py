"""Which model is made, judged and kept: jobs, the gate, drift, search, the registry."""
