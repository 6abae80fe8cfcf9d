"""X-rays: files, pixels, lists, and the samples made of them."""
