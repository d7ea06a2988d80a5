"""Hybridiff for pipelines of the diffusers library."""
