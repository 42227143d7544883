// Package gateway tests examples/gateway end to end: a real nginx with the
// configuration that stands beside it, a real Caddy with the one that its README
// shows, the gateway as a process, an issuer, and an API that records what reaches
// it. Where nginx or Caddy is missing its tests are skipped, or fail if the
// environment variable E2E is "required".
package gateway
