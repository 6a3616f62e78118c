"""Training: data and splits, backbones, internal classifiers by PKD, WISE, exit policy."""
