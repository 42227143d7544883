// Package everything puts the conformance server of the Go SDK behind a guard. That
// server is a program, so the test builds it with [Handler] in the place of the SDK's.
package everything

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/adapters/mcpauth"
)

// What tokens need, by the kind of what they open.
const (
	Tools     = "call:tools"
	Resources = "read:resources"
	Prompts   = "get:prompts"
)

// Handler returns the server behind a guard for tokens of ISSUER for AUDIENCE, with a
// rule for each tool, resource and prompt.
func Handler(server *mcp.Server, options *mcp.StreamableHTTPOptions) http.Handler {
	guard, err := m2mauth.New(m2mauth.Config{Issuer: os.Getenv("ISSUER"), Audience: os.Getenv("AUDIENCE")})
	if err != nil {
		log.Fatal(err)
	}
	config := mcpauth.Config{Guard: guard}
	if config.Tools, config.Resources, config.Prompts, err = rules(context.Background(), server); err != nil {
		log.Fatal(err)
	}
	auth, err := mcpauth.New(config)
	if err != nil {
		log.Fatal(err)
	}
	if err := auth.Validate(server); err != nil {
		log.Fatal(err)
	}
	return auth.Handler(server, options)
}

// rules asks the server what it has.
func rules(ctx context.Context, server *mcp.Server) (tools, resources, prompts map[string]m2mauth.Rule, err error) {
	near, far := mcp.NewInMemoryTransports()
	if _, err := server.Connect(ctx, near, nil); err != nil {
		return nil, nil, nil, err
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "rules", Version: "1"}, nil).Connect(ctx, far, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	defer session.Close()
	tools, resources, prompts = map[string]m2mauth.Rule{}, map[string]m2mauth.Rule{}, map[string]m2mauth.Rule{}
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return nil, nil, nil, err
		}
		tools[tool.Name] = m2mauth.AllScopes(Tools)
	}
	for resource, err := range session.Resources(ctx, nil) {
		if err != nil {
			return nil, nil, nil, err
		}
		resources[resource.URI] = m2mauth.AllScopes(Resources)
	}
	for template, err := range session.ResourceTemplates(ctx, nil) {
		if err != nil {
			return nil, nil, nil, err
		}
		resources[template.URITemplate] = m2mauth.AllScopes(Resources)
	}
	for prompt, err := range session.Prompts(ctx, nil) {
		if err != nil {
			return nil, nil, nil, err
		}
		prompts[prompt.Name] = m2mauth.AllScopes(Prompts)
	}
	return tools, resources, prompts, nil
}
