"""The faults of the model server: which happen, how they refuse a request, and how they spoil a reply."""
