"""Placing a loaded model on a CUDA device; imported everywhere, run only in a host that has one."""

from typing import Any

import torch

from warmrack_store.errors import DeviceUnsupported, OutOfMemory


def place_on_cuda(model: Any, device: torch.device) -> Any:
    """The model with all tensors on the device; a failed copy leaves nothing behind but the host.

    Raises DeviceUnsupported and OutOfMemory.
    """
    if not torch.cuda.is_available():
        raise DeviceUnsupported(f"{device} is not on this machine")
    try:
        torch.cuda.set_device(device)
        return model.to(device)
    except torch.OutOfMemoryError as error:
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        raise OutOfMemory(
            f"the model did not fit on {device}: {free_bytes} of {total_bytes} bytes are free"
        ) from error
