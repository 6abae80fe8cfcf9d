"""The generator of thorax phantoms: anatomy, CT scans and X-rays of it. Free of torch."""
