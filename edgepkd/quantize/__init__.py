"""INT8: quantisers placed by ModelOpt, calibrated, saved without pickle; knows no data."""
