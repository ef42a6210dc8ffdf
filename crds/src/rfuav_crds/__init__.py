"""The rfuav.io API: pydantic models, defaults, rules, and the generator of the CRD manifests."""
