"""Torture: every way in which a training, a checkpoint, a bucket, a pipeline or an input goes wrong, many times.

`make torture` runs it for half an hour and prints the table of docs/trust.md; `make fuzz` looks for bad input with the
parsers' coverage in sight; `test_torture.py` runs a small share.
"""
