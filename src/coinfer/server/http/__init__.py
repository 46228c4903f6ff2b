"""HTTP: the protocol's REST form as an ASGI application on a `Service`."""
