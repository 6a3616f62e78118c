"""What is fitted on stored logits, and how answers are judged; numpy and scipy only."""
