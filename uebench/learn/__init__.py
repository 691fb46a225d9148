"""How networks learn: protocols, loops, checkpoints, projected gradients."""
