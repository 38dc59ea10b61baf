"""For producers and operators: the client, job handles, new jobs, findings."""
