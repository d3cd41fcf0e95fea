"""A GPU that computes nothing: tensors on `cuda` with shapes and types, and a count of what a real one would be asked.

The project's own code runs on it, autograd and autocast too, so a tensor left on another device is an error here as it
would be there. `driver.c` answers what torch asks of NVIDIA's libraries; `device.py` is the device, `counts.py` runs
steps of training and sampling on it and prints what each takes.
"""
