package mcpauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/yosida95/uritemplate/v3"

	"github.com/m2mauth/m2mauth"
)

// Config says what each part of an MCP server requires. Rules see the HTTP request that
// brought the message. They cannot be [m2mauth.Optional]: every request needs a token.
type Config struct {
	// Guard checks the tokens. Required.
	Guard *m2mauth.Guard
	// Tools are the rules of the tools, by name: for tools/call.
	Tools map[string]m2mauth.Rule
	// Resources are the rules of the resources, by URI or by URI template (RFC 6570), as
	// registered: for resources/read, resources/subscribe, resources/unsubscribe,
	// subscriptions/listen, and for completion/complete with ref/resource. The rule of
	// the URI itself comes first. Without it, the rules of all templates that match the
	// URI must be met, and those of URIs that differ from it by percent-encoding only. A
	// template's rule must be good for all that its handler serves, however it is
	// spelled, such as with dot segments. If a template of the server has no rule, what it
	// serves is open by the rules of other templates that match too: [Auth.Validate] names it.
	Resources map[string]m2mauth.Rule
	// Prompts are the rules of the prompts, by name: for prompts/get, and for
	// completion/complete with ref/prompt.
	Prompts map[string]m2mauth.Rule
	// Methods are the rules of your own methods, such as those that
	// [mcp.AddReceivingCustomMethod] adds.
	Methods map[string]m2mauth.Rule
	// Session is the rule of every HTTP request, and all that is required for initialize,
	// ping, server/discover, logging/setLevel, tools/list, prompts/list, resources/list,
	// resources/templates/list, the notifications of the protocol, responses to the
	// server, and for opening and ending streams and sessions. Default:
	// [m2mauth.AnyToken]. Organization tokens need a rule that names an organization
	// here too, such as [m2mauth.OrganizationHeader].
	Session m2mauth.Rule
	// HideForbidden leaves out of lists what the caller's token does not open. That is
	// a convenience: calls are checked whether it is set or not. Functions given to
	// [m2mauth.Custom] are called for each list. Pages become shorter, and those in
	// between may be empty. Default: lists show everything.
	HideForbidden bool
	// Metadata describes the server for [Auth.Mount].
	Metadata m2mauth.MetadataConfig
}

// Auth guards MCP servers. Make one with [New]. It is safe for concurrent use.
type Auth struct {
	guard     *m2mauth.Guard
	rules     map[target]m2mauth.Rule
	templates []template
	decoded   map[string][]m2mauth.Rule // of the resources with a URI, by their decoded URI
	session   m2mauth.Rule
	hide      bool
	metadata  m2mauth.MetadataConfig
}

// kind is what a name is the name of.
type kind string

const (
	aTool     kind = "Tools"
	aResource kind = "Resources"
	aPrompt   kind = "Prompts"
	aMethod   kind = "Methods"
	aSession  kind = "Session" // nothing but a token that meets the rule of the session
	nothing   kind = ""        // what no rule can open
)

// target is what a message reaches for.
type target struct {
	kind kind
	name string
}

// template is a URI template that has a rule.
type template struct {
	uri     string
	matches func(uri string) bool
}

// New returns an Auth. The error names every mistake in the Config at once.
func New(config Config) (*Auth, error) {
	a := &Auth{
		guard:    config.Guard,
		rules:    make(map[target]m2mauth.Rule),
		decoded:  make(map[string][]m2mauth.Rule),
		session:  config.Session,
		hide:     config.HideForbidden,
		metadata: config.Metadata,
	}
	var mistakes []error
	add := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("mcpauth: "+format, args...))
	}
	check := func(where string, rule m2mauth.Rule) {
		if rule.IsOptional() {
			add("%s: %s: every request needs a token", where, rule)
		}
		if a.guard != nil {
			if err := a.guard.ValidateRule(rule); err != nil {
				add("%s: %w", where, err)
			}
		}
	}
	if a.guard == nil {
		add("Guard is nil; was the error of m2mauth.New ignored?")
	}
	if a.session.String() == (m2mauth.Rule{}).String() {
		a.session = m2mauth.AnyToken()
	}
	check("Session", a.session)
	for _, of := range []struct {
		kind  kind
		rules map[string]m2mauth.Rule
	}{{aTool, config.Tools}, {aResource, config.Resources}, {aPrompt, config.Prompts}, {aMethod, config.Methods}} {
		for _, name := range slices.Sorted(maps.Keys(of.rules)) {
			a.rules[target{of.kind, name}] = of.rules[name]
			check(fmt.Sprintf("%s: %q", of.kind, name), of.rules[name])
			switch {
			case name == "":
				add("%s: a name is empty", of.kind)
			case of.kind == aMethod && isProtocols(name):
				add("Methods: %s is the protocol's: see Config for what it requires", name)
			case of.kind == aResource && strings.ContainsAny(name, "{}"):
				parsed, err := uritemplate.New(name)
				if err != nil {
					add("Resources: %q is not a URI template: %w", name, err)
					continue
				}
				a.templates = append(a.templates, template{name, parsed.Regexp().MatchString})
			case of.kind == aResource:
				if uri, err := url.PathUnescape(name); err == nil {
					a.decoded[uri] = append(a.decoded[uri], of.rules[name])
				}
			}
		}
	}
	if mistakes != nil {
		return nil, errors.Join(mistakes...)
	}
	return a, nil
}

// rulesFor returns the rules that a target requires, all of them. Without one, nobody
// reaches the target: that is the zero Rule.
func (a *Auth) rulesFor(t target) []m2mauth.Rule {
	if t.kind == aSession {
		return []m2mauth.Rule{a.session}
	}
	if rule, ok := a.rules[t]; ok {
		return []m2mauth.Rule{rule}
	}
	var rules []m2mauth.Rule
	if t.kind == aResource {
		for _, template := range a.templates {
			if template.matches(t.name) {
				rules = append(rules, a.rules[target{aResource, template.uri}])
			}
		}
	}
	if rules == nil {
		return []m2mauth.Rule{{}}
	}
	// Handlers of templates decode what they match: shop://secre%74 must not escape the
	// rule of shop://secret.
	if uri, err := url.PathUnescape(t.name); err == nil {
		rules = append(rules, a.decoded[uri]...)
	}
	return rules
}

// Claims returns the claims of the token that came with the message which a handler of
// the server is called for. It returns the zero Claims and false in a dry run
// ([m2mauth.Config].InsecureReportOnlyUntil) if the token is missing or invalid.
func Claims(ctx context.Context) (m2mauth.Claims, bool) { return m2mauth.FromContext(ctx) }

// Mount registers the server's handler at the path, such as "/mcp", and the metadata of
// the API (RFC 9728), which the challenges name from then on, with and without a slash at
// the end of its path. It panics as [http.ServeMux.Handle], [Auth.Handler] and
// [m2mauth.Guard.Metadata] do.
func (a *Auth) Mount(mux *http.ServeMux, path string, server *mcp.Server, options *mcp.StreamableHTTPOptions) {
	mux.Handle(path, a.Handler(server, options))
	pattern, metadata := a.guard.Metadata(a.metadata)
	without := strings.TrimSuffix(strings.TrimSuffix(pattern, "{$}"), "/")
	mux.Handle(without, metadata)
	mux.Handle(without+"/{$}", metadata)
}
