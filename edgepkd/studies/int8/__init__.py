"""INT8 by PTQ, QAT and QAD against FP32 on real clips: `just reproduce-int8`."""
