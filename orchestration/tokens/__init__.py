"""How large a request will be: the weight of its text, and the estimate of its tokens."""
