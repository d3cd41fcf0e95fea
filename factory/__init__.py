"""Which model is made, judged and kept: jobs, steps, the gate, drift, search and the registry."""
