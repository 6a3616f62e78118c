"""Libraries that run engines, each opened in one way: OpenVINO, TensorRT, CUDA."""
