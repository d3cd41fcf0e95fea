"""All benchmarks in their short form, on data that is embedded: about ten minutes on two cores.

    python -m benchmarks        (make benchmark)

The long forms, with real data and the minutes that the published tables took, are in each script's docstring.
"""

from __future__ import annotations

import subprocess
import sys

SHORT = (
    ("benchmarks.images", "--source", "digits", "--minutes", "0.5", "--count", "300", "--judge_epochs", "40"),
    ("benchmarks.text", "--source", "pydoc", "--minutes", "0.5", "--only", "original,masked,diffusion"),
    ("benchmarks.pipeline", "--repeats", "1", "--counts", "50000,200000"),
    ("benchmarks.growth", "--repeats", "1", "--short", "--only", "parameters,resolution,batch,context,steps"),
)


def main() -> None:
    for script in SHORT:
        print(f"\n# {' '.join(script)}\n", flush=True)
        subprocess.run([sys.executable, "-m", *script], check=True)


if __name__ == "__main__":
    main()
