"""The target cache: teacher outputs computed once, stored with checksums, replayed."""
