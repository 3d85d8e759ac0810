"""The GPUs of this machine, without torch."""

import os
import re
import subprocess


def visible_gpus() -> list[str]:
    """The names of the GPUs that CUDA would show here, without CUDA: `nvidia-smi`, and CUDA_VISIBLE_DEVICES.

    A number that is not there ends the list, as it does for CUDA.
    """
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if listing.returncode:
        return []
    # GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-…); lines of MIG slices are indented
    gpus = re.findall(r"^GPU (\d+): (.*?)(?: \(UUID: (.*)\))?$", listing.stdout, flags=re.MULTILINE)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [name for _, name, _ in gpus]
    names = []
    for wanted in filter(None, (part.strip() for part in chosen.split(","))):
        here = [
            name for number, name, uuid in gpus if wanted == number or (wanted[0] == "G" and uuid.startswith(wanted))
        ]
        if not here:
            break
        names += here
    return names
