"""The dashboard: pages made on the server, for people; reads what the routes of the API read."""
