"""What tests are built from: virtual time, scripted upstreams, a faulty HTTP server."""
