"""Earlier turns of a session, made acceptable to the model that is asked now."""
