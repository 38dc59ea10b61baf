"""The values that the other packages exchange: claims, commits, gated calls, and the waits that responses ask for."""
