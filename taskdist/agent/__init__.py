"""The agent: takes tasks as it has slots, runs them, keeps their leases alive, reports."""
