// Package gateway tests cmd/m2mauth-gateway end to end: a real nginx and two releases of
// Caddy with the configurations that stand beside it, stand-ins for Traefik and Envoy, the
// gateway as a process, an issuer, and an API that records what reaches it. TestProxies sends
// one table of requests through all of them; docs/gateway-proxies.md has what becomes of each.
// Where nginx or Caddy is missing its tests are skipped, or fail if the environment variable
// E2E is "required".
package gateway
