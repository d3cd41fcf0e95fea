"""What of this machine's environment the steps of a local run get: what the table names, and no more.

A shell holds credentials that no step needs. What one does need, such as keys of another cloud, is named by the setting
`pass_variables`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from core.processes.interpreter import waiting
from core.training.threads import CHOSEN


class Passed(NamedTuple):
    """Variables that steps are given.

    Args:
        names: exact, or with * at the end.
        why: what for.
        containers: also with `--runner docker`, where the image has its own programs, folders and certificates.
    """

    names: tuple[str, ...]
    why: str
    containers: bool = False


TABLE = (
    Passed(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "XDG_*", "LD_LIBRARY_PATH", "DYLD_*", "SYSTEMROOT"),
           "programs, libraries and folders of the user"),
    Passed(("LANG", "LANGUAGE", "LC_*", "TZ"), "language and time zone", containers=True),
    Passed(("PYTHON*", "VIRTUAL_ENV"), "the interpreter"),
    Passed(("OMP_*", "MKL_*", "OPENBLAS_*", "KMP_*", "GOMP_*", "NUMEXPR_*", "ONEDNN_*", "DNNL_*", "ATEN_*"),
           "threads and kind of instructions: sums are bit-identical only with the same", containers=True),
    Passed(("CUDA_*", "NVIDIA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "GLOO_*", "TORCH_*", "PYTORCH_*", "TORCHINDUCTOR_*",
            "TRITON_*"), "GPUs, torch and how processes meet", containers=True),
    Passed(("HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM"),
           "where models of Hugging Face are, without the token"),
    Passed(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
           "the way out of the network", containers=True),
    Passed(("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "certificates"),
    Passed(("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CONFIG", "GCE_METADATA_*",
            "NO_GCE_CHECK"), "access to gs://; the file is named, not held"),
    Passed(("STORAGE_EMULATOR_HOST", "GCSFS_*"), "another server in place of Google's", containers=True),
    Passed(("TEXTDIFFUSION_BILLING_PROJECT", "TEXTDIFFUSION_CACHE", "TEXTDIFFUSION_CACHE_GB", "TEXTDIFFUSION_PROCESSES",
            "TEXTDIFFUSION_PROJECT", "TEXTDIFFUSION_REGION", "TEXTDIFFUSION_ENDPOINT"),
           "what steps read of the settings", containers=True),
)  # fmt: skip
"""Besides these, every step has what `step_environment` sets."""


def step_environment(
    root: Path, runs: Path, events: Path, scratch: Path, version: str, more: Iterable[str] = ()
) -> dict[str, str]:
    """The environment of a step's process.

    Args:
        root: the folder of the packages; first on the steps' path, where the folder a command is called in is not.
        runs: where runs are.
        events: file that steps report their progress to.
        scratch: folder for temporary files.
        version: of the code.
        more: names of further variables to pass on.
    """
    passed = allowed(os.environ, more)
    own = [part for part in passed.get("PYTHONPATH", "").split(os.pathsep) if part]  # an empty part is the folder here
    return {
        **waiting(passed),
        **passed,
        "PYTHONPATH": os.pathsep.join([str(root), *own]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(scratch),
        "TEXTDIFFUSION_CODE_VERSION": version,
        "TEXTDIFFUSION_EVENTS": str(events),
        "TEXTDIFFUSION_WORK": os.environ.get("TEXTDIFFUSION_WORK") or str(runs / ".work"),
    }


def container_environment(env: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """What of a step's environment goes into a container; the image's name is set by the task itself."""
    set_here = {CHOSEN, "TEXTDIFFUSION_CODE_VERSION", "TEXTDIFFUSION_EVENTS", "TEXTDIFFUSION_WORK"}
    return allowed(env, {*set_here, *more}, [row for row in TABLE if row.containers])


def allowed(
    environment: Mapping[str, str], more: Iterable[str] = (), table: Iterable[Passed] = TABLE
) -> dict[str, str]:
    """The variables of `environment` that `table` or `more` names."""
    patterns = [name for row in table for name in row.names] + list(more)
    return {
        name: value for name, value in environment.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
