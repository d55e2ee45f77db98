"""The running daemon of sam2-stream; see `stream.daemon`."""
