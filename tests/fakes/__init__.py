"""Servers on this machine that the real Google clients talk to."""
