"""The exact backend: stored weights in their stored dtype, or cast as declared."""

from dataclasses import replace

import torch

from warmrack_workers.backends import LoadedModel
from warmrack_workers.backends.cuda import place_on_cuda
from warmrack_workers.backends.pretrained import load_pretrained
from warmrack_workers.host_spec import HostSpec


class ExactBackend:
    """Loads the snapshot's safetensors with the class that its config names, nothing else.

    On CPU the weights stay a private map of the cache's files: a same-dtype load copies nothing.
    """

    def load(self, spec: HostSpec) -> LoadedModel:
        loaded = load_pretrained(spec)
        device = torch.device(spec.device)
        if device.type != "cuda":
            return loaded
        return replace(loaded, model=place_on_cuda(loaded.model, device))
