"""What the command line does with a store's file that no distributor holds."""

from taskdist.backends.store_copy import check_copy, refuse_place_in_use

__all__ = ["check_copy", "refuse_place_in_use"]
