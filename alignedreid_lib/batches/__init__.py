"""Pictures into batches of P people and K pictures of each. Explained in notebooks/02_batches."""
