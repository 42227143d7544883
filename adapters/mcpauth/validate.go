package mcpauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// validating marks the context of the session in which [Auth.Validate] asks for lists.
type validating struct{}

var validateMay = map[string]bool{
	"initialize": true, "notifications/initialized": true, "server/discover": true, "ping": true,
	listTools: true, listPrompts: true, listResources: true, listTemplates: true,
}

// Validate compares the rules with what the server has. Call it after everything is
// registered. The error names every tool, prompt, resource and template without a rule,
// which nobody can reach but by the rule of a template that matches it too, and every rule
// for what the server does not have, such as a misspelled one. It cannot see methods of
// your own.
func (a *Auth) Validate(server *mcp.Server) error {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), validating{}, a))
	defer cancel()
	ours, theirs := mcp.NewInMemoryTransports()
	session, err := server.Connect(ctx, ours, nil)
	if err != nil {
		return fmt.Errorf("mcpauth: Validate: %w", err)
	}
	defer session.Close()
	client, err := mcp.NewClient(&mcp.Implementation{Name: "mcpauth", Version: "0"}, nil).Connect(ctx, theirs, nil)
	if err != nil {
		return fmt.Errorf("mcpauth: Validate: %w", err)
	}
	defer client.Close()

	served := make(map[target]bool)
	var mistakes []error
	see := func(k kind, name string, err error) {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("mcpauth: Validate: %s cannot be listed: %w", k, err))
			return
		}
		served[target{k, name}] = true
	}
	has := client.InitializeResult().Capabilities
	if has.Tools != nil {
		for tool, err := range client.Tools(ctx, nil) {
			see(aTool, orNone(tool).Name, err)
		}
	}
	if has.Prompts != nil {
		for prompt, err := range client.Prompts(ctx, nil) {
			see(aPrompt, orNone(prompt).Name, err)
		}
	}
	if has.Resources != nil {
		for resource, err := range client.Resources(ctx, nil) {
			see(aResource, orNone(resource).URI, err)
		}
		for template, err := range client.ResourceTemplates(ctx, nil) {
			see(aResource, orNone(template).URITemplate, err)
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(served), compare) {
		if len(a.rulesFor(t)) == 1 && a.rulesFor(t)[0].String() == "Rule{}" {
			mistakes = append(mistakes, fmt.Errorf("mcpauth: %s: %q has no rule", t.kind, t.name))
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(a.rules), compare) {
		if t.kind != aMethod && !served[t] {
			mistakes = append(mistakes, fmt.Errorf("mcpauth: %s: the server has no %q", t.kind, t.name))
		}
	}
	return errors.Join(mistakes...)
}

func orNone[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

func compare(a, b target) int {
	if a.kind != b.kind {
		return cmp.Compare(string(a.kind), string(b.kind))
	}
	return cmp.Compare(a.name, b.name)
}
