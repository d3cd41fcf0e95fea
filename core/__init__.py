"""Diffusion itself: noise, samplers, training, evaluation. Imports torch; never kfp, never google.cloud."""
