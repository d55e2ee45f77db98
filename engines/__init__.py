"""SAM 2 as a few fixed-shape programs; never imports `stream`."""
