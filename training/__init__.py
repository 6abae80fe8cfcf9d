"""The loop and what it needs; of methods it knows only methods.base."""
