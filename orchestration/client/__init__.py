"""What producers and operators hold: the client, job handles, new jobs, findings."""
