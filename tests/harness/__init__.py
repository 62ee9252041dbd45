"""What tests are made with: a real server, real agents, real browsers, and patience with a deadline."""
