"""What servers leave in the text of a reply: thinking, and tool calls that they did not parse. Nothing runs from a text."""
