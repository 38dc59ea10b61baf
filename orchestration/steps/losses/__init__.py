"""Steps whose workers were lost: reports of the losses, and the search for the step that caused them."""
