"""The review of pairs and clusters by people: routes below `/api/v1/pairs` and `/api/v1/clusters`."""
