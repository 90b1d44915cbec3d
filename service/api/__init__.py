"""HTTP: routes, wire schemas, problems. The only package that knows the protocol."""
