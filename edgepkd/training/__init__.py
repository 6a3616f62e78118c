"""Networks trained on decoded clips: trunks, internal classifiers by PKD, QAD; and their logits."""
