"""Regions of Vertex AI, and where accelerators have been seen."""

from __future__ import annotations

import difflib
import re

from core.errors import UserError

# https://cloud.google.com/vertex-ai/docs/general/locations, as remembered in 2026: a region missing here is only noted.
REGIONS = (
    *("africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3"),
    *("asia-south1", "asia-southeast1", "asia-southeast2", "australia-southeast1", "australia-southeast2"),
    *("europe-central2", "europe-north1", "europe-southwest1", "europe-west1", "europe-west12", "europe-west2"),
    *("europe-west3", "europe-west4", "europe-west6", "europe-west8", "europe-west9", "me-central1", "me-central2"),
    *("me-west1", "northamerica-northeast1", "northamerica-northeast2", "southamerica-east1", "southamerica-west1"),
    *("us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1", "us-west2", "us-west3", "us-west4"),
)

# Compute Engine zones of the SkyPilot catalog (v8, gcp/vms.csv, read 2026-11); Vertex AI may have fewer.
SEEN = {
    "NVIDIA_TESLA_A100": (
        *("us-central1", "us-east1", "us-west1", "us-west3", "us-west4", "europe-west4", "me-west1"),
        *("asia-northeast1", "asia-northeast3", "asia-southeast1"),
    ),
    "NVIDIA_H100_80GB": (
        *("us-central1", "us-east4", "us-east5", "us-west1", "us-west4", "europe-west1", "europe-west3"),
        *("europe-west4", "europe-west8", "europe-west9", "asia-northeast1", "asia-south1", "asia-southeast1"),
    ),
}


def check_region(region: str) -> str:
    """What is doubtful about a region, or an empty string.

    Raises:
        UserError: it cannot be a region.
    """
    near = difflib.get_close_matches(region, REGIONS, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; regions: {', '.join(REGIONS)}"
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+", region):
        zone = re.fullmatch(r"([a-z]+-[a-z]+\d+)-[a-z]", region)
        said = f" is a zone; its region is {zone[1]}" if zone else f" is not a region{hint}"
        raise UserError(f"region: {region!r}{said}")
    return "" if region in REGIONS else f"region: {region!r} is not in the list of Vertex AI regions{hint}"


def check_accelerator(region: str, accelerator: str) -> str:
    """What is doubtful about an accelerator in a region, or an empty string."""
    seen = SEEN.get(accelerator)
    if seen is None or region in seen:
        return ""
    return f"{accelerator} has not been seen in {region}; it has in {', '.join(seen)}"
