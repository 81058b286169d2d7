"""The table of rows: one file each, and one line here."""

from bench.rows import (
    g01_ranges,
    g02_unlimited,
    g03_killed,
    g04_warm_up_of_eight,
    g05_once,
    g06_warm_up,
    g07_first_token,
    g09_quantized,
    g15_memory,
    g16_resolution,
    g19_audit,
    g20_memory_estimate,
)

ROWS = (
    g01_ranges.ROW,
    g02_unlimited.ROW,
    g03_killed.ROW,
    g04_warm_up_of_eight.ROW,
    g05_once.ROW,
    g06_warm_up.ROW,
    g07_first_token.ROW,
    g09_quantized.ROW,
    g15_memory.ROW,
    g16_resolution.ROW,
    g19_audit.ROW,
    g20_memory_estimate.ROW,
)
