"""Behaviour of released code, to reproduce models and scores that depend on it; no default uses it."""
