"""What applies commands durably. A backend finds and saves; `core` decides."""
