"""The thin shell around the core: watches, writes, leader election, and the progress server."""
