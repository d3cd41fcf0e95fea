"""Traffic of an endpoint: how much each version gets, and what it was before the last change.

Traffic moves at once and only to versions that answer. The split before the last change is kept in a label of the
endpoint, for `rollback`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import UserError
from pipelines.vertex.client import Vertex, one_line
from pipelines.vertex.endpoints import Endpoint, Split, endpoint_of

BEFORE = "textdiffusion-before"
"""Label: the split before the last change, as ID-SHARE_ID-SHARE."""
LONGEST = 63  # characters of a label


def shared(endpoint: Endpoint, wanted: Mapping[str, int]) -> Split:
    """The split in which the versions of `wanted` have these percentages, and the others share what is left as before.

    Raises:
        UserError: a version is not deployed, or the percentages cannot add up to 100.
    """
    given = {endpoint.find(name).identity: share for name, share in wanted.items()}
    left = 100 - sum(given.values())
    if any(not 0 <= share <= 100 for share in given.values()) or left < 0:
        raise UserError(f"traffic: found {_text(wanted)}; allowed: percentages that add up to at most 100")
    rest = {identity: share for identity, share in endpoint.split.items() if identity not in given}
    if left and not rest:
        raise UserError(f"traffic: found {_text(wanted)}; no other version has traffic, for the other {left} %")
    whole = sum(rest.values())
    parts = {identity: divmod(left * share, whole) for identity, share in rest.items()}
    split = given | {identity: part for identity, (part, _) in parts.items()}
    for identity in sorted(parts, key=lambda one: -parts[one][1])[: 100 - sum(split.values())]:
        split[identity] += 1
    return {identity: share for identity, share in split.items() if share}


def move(vertex: Vertex, endpoint: Endpoint, split: Split) -> Endpoint:
    """Changes the traffic at once, and keeps the split before for `rollback`.

    Raises:
        UserError: somebody else changed the endpoint meanwhile, or the service refuses.
    """
    from google.cloud import aiplatform_v1

    labels = {key: value for key, value in endpoint.labels.items() if key != BEFORE}
    before = "_".join(f"{identity}-{share}" for identity, share in sorted(endpoint.split.items()))
    if before and len(before) <= LONGEST:
        labels[BEFORE] = before
    change = aiplatform_v1.Endpoint(name=endpoint.resource, traffic_split=split, labels=labels, etag=endpoint.etag)
    with one_line(f"endpoint {endpoint.name}"):
        made = vertex.endpoints.update_endpoint(endpoint=change, update_mask={"paths": ["traffic_split", "labels"]})
    return endpoint_of(made)


def before(endpoint: Endpoint) -> Split:
    """The split before the last change.

    Raises:
        UserError: none is known, or a version of it is no longer deployed.
    """
    kept = endpoint.labels.get(BEFORE, "")
    if not re.fullmatch(r"[0-9]+-[0-9]{1,3}(_[0-9]+-[0-9]{1,3})*", kept):
        raise UserError(
            f"endpoint {endpoint.name}: no earlier traffic is known; `textdiffusion endpoint traffic` sets it"
        )
    split = {identity: int(share) for identity, _, share in (part.partition("-") for part in kept.split("_"))}
    gone = [identity for identity in split if identity not in {one.identity for one in endpoint.deployed}]
    if gone:
        raise UserError(f"endpoint {endpoint.name}: what served before (deployment {gone[0]}) is no longer deployed")
    return split


def _text(wanted: Mapping[str, int]) -> str:
    return " ".join(f"{name}={share}" for name, share in wanted.items())
