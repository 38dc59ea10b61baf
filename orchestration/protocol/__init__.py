"""What passes between the rooms: claims, commits, gated calls, and the waits that responses ask for."""
