"""Dtypes in the three spellings that meet here: safetensors', torch's and a request's precision."""

import torch

TORCH_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
PRECISION_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
STORED_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def stored_name(dtype: torch.dtype) -> str:
    """safetensors' spelling; torch's own where safetensors has none."""
    return STORED_NAMES.get(dtype, str(dtype))
