"""Programs that put load on a cluster and print one line of JSON: what they did, and how long each took."""
