"""Groups of nodes that own a data set together: pure plans, and windows of images that arrived."""
