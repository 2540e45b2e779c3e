"""How far a policy's results can be trusted: what its status means for the reader."""

from dataclasses import asdict
from typing import Any, Final

from gmemlab.policy import Policy

# Statuses for which there is no public code to hold the results against, and how tables show them.
EXTRAPOLATED: Final = {"proposed in words": "in words*", "upper bound": "upper bound*", "custom": "custom*"}


def write_status(policy: Policy) -> str:
    """Return a policy's status in a few characters; a star marks an extrapolation."""
    return EXTRAPOLATED.get(policy.status, policy.status)


def policy_as_json(policy: Policy) -> dict[str, Any]:
    """Return a policy: all its choices, its status, and whether that makes its results an extrapolation."""
    return {
        **asdict(policy),
        "sizes": list(policy.sizes),
        "fallocate_sizes": list(policy.fallocate_sizes),
        "extrapolation": policy.status in EXTRAPOLATED,
    }
