"""Training steps on fake CUDA tensors: no GPU and no arithmetic, but the devices, types and operators of a real one."""
