"""From image files to batches of P identities with K images each. Explained in notebooks/02_batches."""
