"""A fleet against a model server of somebody else, which judges the traffic."""
