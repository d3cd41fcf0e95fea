"""Training: one loop for every model, its clock, optimizers, averages and guards."""
