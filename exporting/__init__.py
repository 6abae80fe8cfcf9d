"""Weights under other libraries' names, the stand-alone 3D network, the model card."""
