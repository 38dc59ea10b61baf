"""`midwatch bench replay`: dead letters of an outage, replayed without a human on a real fleet."""
