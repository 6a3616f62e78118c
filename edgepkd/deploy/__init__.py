"""From trained networks to a bundle: segments as ONNX, their parity, and what a bundle says."""
