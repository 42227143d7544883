// Package caddy holds the release of Caddy that e2e/gateway builds and tests the gateway
// behind. It is a module outside go.work: what Caddy requires must not raise the versions of
// ours.
package caddy
