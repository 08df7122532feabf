"""What knows protobuf. Only `convert.py` and the client read or build messages."""
