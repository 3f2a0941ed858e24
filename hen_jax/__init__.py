"""hen_jax teaches language models context-calibrated empathy. Importing it changes nothing."""
