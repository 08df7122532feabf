"""The distributor: gRPC in front of a backend."""
