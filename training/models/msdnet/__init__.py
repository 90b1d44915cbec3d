"""Multi-scale DenseNet, arXiv 1703.09844."""
