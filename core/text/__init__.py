"""Text diffusion in embedding space, its autoregressive and masked controls, and their fusion."""
