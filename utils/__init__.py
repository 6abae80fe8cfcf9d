"""Small helpers that know nothing of PCRL, images or networks."""
