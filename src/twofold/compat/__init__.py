"""Quirks of released code, to reproduce models and numbers that depend on them; no default uses any of them."""
