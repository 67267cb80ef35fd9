"""Running trials on a cluster: the only ray imports."""
