"""SAM 3 on a CUDA card: proven equal to transformers, measured alone, measured serving. See README.md beside this."""
