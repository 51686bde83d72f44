"""SAM 3 for images in plain PyTorch: CUDA, CPU and Apple MPS, with nothing but torch, numpy and a tokenizer."""
