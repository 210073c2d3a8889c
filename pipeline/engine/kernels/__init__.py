"""Our own CUDA kernels: sources, their build with nvcc, their calls. No headers of torch, no compiler in Python."""
