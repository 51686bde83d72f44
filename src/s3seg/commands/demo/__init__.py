"""``s3seg demo``, and its picture."""
