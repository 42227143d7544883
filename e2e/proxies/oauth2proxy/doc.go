// Package oauth2proxy says which oauth2-proxy the gateway is compared with: go.mod has
// it as a tool. It is a module of its own, outside go.work, so that its requirements
// raise nobody else's.
//
//	GOWORK=off go build -o oauth2-proxy github.com/oauth2-proxy/oauth2-proxy/v7
package oauth2proxy
