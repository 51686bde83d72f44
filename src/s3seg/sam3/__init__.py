"""SAM 3 for images in plain PyTorch, for CUDA, CPU and Apple MPS. Needs torch, numpy, safetensors and tokenizers."""
