"""``s3seg doctor``: the checks of this machine, and of the services' parts."""
