"""What other programs call a device."""

import re

from servolt.command import Command
from servolt.launchers.manifest import devices, refusal

__all__ = ["CHIPS", "ray_name", "skypilot_name"]

# Longer names first. SkyPilot's are those of its catalogue, Ray's those of ray/util/accelerators (2.60.0).
CHIPS = (
    ("GB300", "GB300", "GB300"),
    ("GB200", "GB200", "GB200"),
    ("GH200", "GH200", None),
    ("B300", "B300", "B300"),
    ("B200", "B200", "B200"),
    ("H200", "H200", "H200"),
    ("H100", "H100", "H100"),
    ("H20", "H20", "H20"),
    ("A100.*80GB", "A100-80GB", "A100-80G"),
    ("A100", "A100", "A100-40G"),
    ("A10G", "A10G", "A10G"),
    ("A10", "A10", None),
    ("A40", "A40", None),
    ("RTX A6000", "A6000", None),
    ("L40S", "L40S", "L40S"),
    ("L40", "L40", None),
    ("L4", "L4", "L4"),
    ("RTX PRO 6000", "RTXPRO6000", "RTX-PRO-6000"),
    ("RTX 6000 Ada", "RTX6000-Ada", None),
    ("RTX 4090", "RTX4090", None),
    ("RTX 3090", "RTX3090", None),
    ("V100.*32GB", "V100-32GB", "V100"),
    ("V100", "V100", "V100"),
    ("T4", "T4", "T4"),
    ("P100", "P100", "P100"),
    ("MI300X", "MI300X", "AMD-Instinct-MI300X-OAM"),
    ("MI325X", "MI325X", "AMD-Instinct-MI325X-OAM"),
    ("MI355X", "MI355X", "AMD-Instinct-MI355X-OAM"),
    ("MI350X", "MI350X", "AMD-Instinct-MI350X-OAM"),
)


def skypilot_name(command: Command) -> str:
    """Raises InvalidInputError for a device that no cloud in its catalogue has."""
    found = _chip(command, "skypilot")
    if found is None:
        name = devices(command, "skypilot").name
        raise refusal(
            "skypilot", f"{name}, for which it has no name that is known here", "Export docker or kubernetes."
        )
    return found[1]


def ray_name(command: Command) -> str | None:
    """None for a device without a name in Ray, which then takes any."""
    found = _chip(command, "ray-serve")
    return found[2] if found is not None else None


def _chip(command: Command, target: str) -> tuple[str, str, str | None] | None:
    name = devices(command, target).name or ""
    return next((chip for chip in CHIPS if re.search(rf"(?<![A-Z0-9]){chip[0]}(?![0-9A-Z])", name)), None)
