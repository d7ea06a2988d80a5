"""The embedded default: a small model and a sampler, so that Hybridiff can be tried without ComfyUI."""
