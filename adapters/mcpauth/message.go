package mcpauth

import (
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// message is what decides about a JSON-RPC message. The same function makes targets of
// it, whether the body was read here or by the SDK.
type message struct {
	id     string // as written: a string or a number; empty for a notification and a batch
	method string
	name   string   // of a tool or a prompt
	uri    string   // of a resource
	uris   []string // of the resources that subscriptions/listen names
	ref    reference
}

// reference is what completion/complete completes for.
type reference struct{ kind, name, uri string }

// The methods of the protocol. What is not among them needs a rule in Config.Methods.
const (
	callTool            = "tools/call"
	complete            = "completion/complete"
	getPrompt           = "prompts/get"
	listPrompts         = "prompts/list"
	listResources       = "resources/list"
	listTemplates       = "resources/templates/list"
	listTools           = "tools/list"
	readResource        = "resources/read"
	subscribe           = "resources/subscribe"
	unsubscribe         = "resources/unsubscribe"
	subscriptionsListen = "subscriptions/listen"
)

// needsTokenOnly are the methods that the rule of the session opens: they reach nothing
// but the caller's own session and lists.
var needsTokenOnly = map[string]bool{
	"":                                 true, // a response to the server
	"initialize":                       true,
	"ping":                             true,
	"server/discover":                  true,
	"logging/setLevel":                 true, // of this session alone
	listTools:                          true,
	listPrompts:                        true,
	listResources:                      true,
	listTemplates:                      true,
	"notifications/initialized":        true,
	"notifications/cancelled":          true,
	"notifications/progress":           true,
	"notifications/roots/list_changed": true,
}

func isProtocols(method string) bool {
	switch method {
	case callTool, complete, getPrompt, readResource, subscribe, unsubscribe, subscriptionsListen:
		return true
	}
	return needsTokenOnly[method]
}

// targets returns what a message reaches for. All of it must be open to the caller.
func (m message) targets() []target {
	switch m.method {
	case callTool:
		return []target{{aTool, m.name}}
	case getPrompt:
		return []target{{aPrompt, m.name}}
	case readResource, subscribe, unsubscribe:
		return []target{{aResource, m.uri}}
	case complete:
		switch m.ref.kind {
		case "ref/prompt":
			return []target{{aPrompt, m.ref.name}}
		case "ref/resource":
			return []target{{aResource, m.ref.uri}}
		}
		return []target{{}}
	case subscriptionsListen:
		targets := []target{{kind: aSession}}
		for _, uri := range m.uris {
			targets = append(targets, target{aResource, uri})
		}
		return targets
	}
	if needsTokenOnly[m.method] {
		return []target{{kind: aSession}}
	}
	return []target{{aMethod, m.method}}
}

// parsed returns what the SDK parsed. ok is false for parameters of a type that this
// package does not know, which nobody's token opens.
func parsed(method string, params mcp.Params) (m message, ok bool) {
	m.method = method
	switch method {
	case callTool, complete, getPrompt, readResource, subscribe, unsubscribe, subscriptionsListen:
	default:
		return m, method != ""
	}
	switch p := params.(type) {
	case *mcp.CallToolParamsRaw:
		if p != nil && method == callTool {
			m.name = p.Name
			return m, true
		}
	case *mcp.GetPromptParams:
		if p != nil && method == getPrompt {
			m.name = p.Name
			return m, true
		}
	case *mcp.ReadResourceParams:
		if p != nil && method == readResource {
			m.uri = p.URI
			return m, true
		}
	case *mcp.SubscribeParams:
		if p != nil && method == subscribe {
			m.uri = p.URI
			return m, true
		}
	case *mcp.UnsubscribeParams:
		if p != nil && method == unsubscribe {
			m.uri = p.URI
			return m, true
		}
	case *mcp.CompleteParams:
		if p != nil && p.Ref != nil && method == complete {
			m.ref = reference{p.Ref.Type, p.Ref.Name, p.Ref.URI}
			return m, true
		}
	case *mcp.SubscriptionsListenParams:
		if p != nil && method == subscriptionsListen {
			if p.Notifications != nil {
				m.uris = p.Notifications.ResourceSubscriptions
			}
			return m, true
		}
	}
	return m, false
}
