"""HTTP: the application that other programs mount, and that `reconciler serve` serves."""
