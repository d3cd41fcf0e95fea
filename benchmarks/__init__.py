"""What the project is measured against: one script, one Markdown table. `python -m benchmarks` runs all, in short."""
