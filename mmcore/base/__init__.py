"""What everything is made of: records, flags, lists, counters, errors, the state that owns the arrays."""
