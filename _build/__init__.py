"""How benign_kernels is built: the sources, the tools, the ninja file, and the PEP 517 backend."""
