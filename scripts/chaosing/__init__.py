"""What `scripts/chaos` is made of: a campaign of kills, stops and cuts, and its checker."""
